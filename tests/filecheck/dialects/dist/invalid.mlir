// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// Axes of a mesh have names of their own.
// CHECK: mesh has axes tp, tp: they repeat
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 2, tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// They have ranks.
// CHECK: mesh axis tp has size 0, expected at least 1
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 0> : tensor<4x64xf32>
  func.return
}
// -----

// Collectives run over axes of the mesh.
// CHECK: axis pp is none of the mesh's tp
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce sum %x over [pp] mesh #dist.mesh<tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// Each counts once.
// CHECK: axes tp, tp repeat
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce sum %x over [tp, tp] mesh #dist.mesh<tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// Reductions are sums and extremes.
// CHECK: kind is mean, expected one of sum, max, min
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce mean %x over [tp] mesh #dist.mesh<tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// A reduction over ranks keeps the shape.
// CHECK: result has shape [4, 32], expected [4, 64]
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 2> : tensor<4x32xf32>
  func.return
}
// -----

// Gathered tensors lie one after the other.
// CHECK: result has shape [4, 64], expected [8, 64]
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_gather %x dim 0 over [tp] mesh #dist.mesh<tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// They lie along one of their dimensions.
// CHECK: dim is 2, expected 0 to 1
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.all_gather %x dim 2 over [tp] mesh #dist.mesh<tp = 2> : tensor<4x64xf32>
  func.return
}
// -----

// Parts are equal.
// CHECK: dimension 0 of [4, 64] is not cut into 3 equal parts
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.reduce_scatter sum %x dim 0 over [tp] mesh #dist.mesh<tp = 3> : tensor<1x64xf32>
  func.return
}
// -----

// A group over two axes has as many ranks as both together.
// CHECK: result has shape [4, 16], expected [4, 8]
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.shard_slice %x dim 1 over [dp, tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x16xf32>
  func.return
}
// -----

// Nothing is converted.
// CHECK: result has element type bf16, expected f32
func.func @f(%x : tensor<4x64xf32>) {
  %y = dist.shard_slice %x dim 1 over [tp] mesh #dist.mesh<tp = 4> : tensor<4x16xbf16>
  func.return
}
// -----

// A sharding cuts along axes of its mesh.
// CHECK: axis dp is none of the mesh's tp
"test.op"() {s = #dist.sharding<#dist.mesh<tp = 2>, [[dp]]>} : () -> ()

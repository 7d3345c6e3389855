// RUN: irc opt %s | filecheck %s
// RUN: irc opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Collectives run within the groups of ranks that differ along the named axes of the mesh.
// CHECK: func.func @collectives
func.func @collectives(%x : tensor<4x64xf32>) {
  // CHECK-NEXT: %0 = dist.all_reduce sum %x over [tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x64xf32> {module = "m"}
  // GENERIC: %0 = "dist.all_reduce"(%x) {kind = "sum", over = ["tp"], mesh = #dist.mesh<dp = 2, tp = 4>, module = "m"}
  %0 = dist.all_reduce sum %x over [tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x64xf32> {module = "m"}
  // CHECK-NEXT: %1 = dist.all_gather %x dim 1 over [tp] mesh #dist.mesh<tp = 4> : tensor<4x256xf32>
  %1 = dist.all_gather %x dim 1 over [tp] mesh #dist.mesh<tp = 4> : tensor<4x256xf32>
  // CHECK-NEXT: %2 = dist.reduce_scatter max %x dim 0 over [tp] mesh #dist.mesh<tp = 4> : tensor<1x64xf32>
  // GENERIC: "dist.reduce_scatter"(%x) {kind = "max", dim = 0 : i64, over = ["tp"], mesh = #dist.mesh<tp = 4>}
  %2 = dist.reduce_scatter max %x dim 0 over [tp] mesh #dist.mesh<tp = 4> : tensor<1x64xf32>
  // CHECK-NEXT: %3 = dist.shard_slice %x dim 1 over [dp, tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x8xf32>
  %3 = dist.shard_slice %x dim 1 over [dp, tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x8xf32>
  // A sharding names the axes that cut each dimension.
  // CHECK-NEXT{LITERAL}: "test.op"() {a = #dist.sharding<#dist.mesh<dp = 2, tp = 4>, [[dp], [], [tp]]>, b = #dist.sharding<#dist.mesh<tp = 4>, []>}
  "test.op"() {a = #dist.sharding<#dist.mesh<dp = 2, tp = 4>, [[dp], [], [tp]]>, b = #dist.sharding<#dist.mesh<tp = 4>, []>} : () -> ()
  func.return
}

// RUN: irc opt %s | filecheck %s
// RUN: irc opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// One scale for a tensor: stored floats as well as integers.
// CHECK: func.func @tensor
func.func @tensor(%x : tensor<4x8xf32>, %s : tensor<f32>, %z : tensor<i32>) -> tensor<4x8xf32> {
  // CHECK-NEXT: %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, tensor>>
  // GENERIC: %q = "nquant.quantize"(%x, %s) : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8x!nquant.quantized<i8 : f32, tensor>>
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, tensor>>
  // CHECK-NEXT: %f = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<f8E4M3FN : f32, tensor>>
  %f = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<f8E4M3FN : f32, tensor>>
  // CHECK-NEXT: %u = nquant.quantize %x, %s zero_point %z : tensor<4x8x!nquant.quantized<ui8 : f32, tensor, zero_point>>
  %u = nquant.quantize %x, %s zero_point %z : tensor<4x8x!nquant.quantized<ui8 : f32, tensor, zero_point>>
  // CHECK-NEXT: %y = nquant.dequantize %u, %s zero_point %z : tensor<4x8xf32> {module = "m"}
  // GENERIC: %y = "nquant.dequantize"(%u, %s, %z) {module = "m"}
  %y = nquant.dequantize %u, %s zero_point %z : tensor<4x8xf32> {module = "m"}
  func.return %y : tensor<4x8xf32>
}

// One for each index of an axis, or for each group of neighbours along it.
// CHECK: func.func @finer
func.func @finer(%x : tensor<4x8xbf16>, %c : tensor<4xf32>, %g : tensor<4x2xbf16>) {
  // CHECK-NEXT: %0 = nquant.quantize %x, %c : tensor<4x8x!nquant.quantized<i8 : bf16, channel 0>>
  %0 = nquant.quantize %x, %c : tensor<4x8x!nquant.quantized<i8 : bf16, channel 0>>
  // CHECK-NEXT: %1 = nquant.quantize %x, %g : tensor<4x8x!nquant.quantized<i4 : bf16, group 1 by 4>>
  // GENERIC: tensor<4x8x!nquant.quantized<i4 : bf16, group 1 by 4>>
  %1 = nquant.quantize %x, %g : tensor<4x8x!nquant.quantized<i4 : bf16, group 1 by 4>>
  // A scheme is an attribute of its own, too; sizes may be symbolic, placements as of any tensor.
  // CHECK-NEXT: "test.op"() {scheme = #nquant.scheme<i4 : f32, group 1 by 32, zero_point>}
  // CHECK-SAME: -> !t_batch_8_nquant_quantized_i8_f32_tensor
  %2 = "test.op"() {scheme = #nquant.scheme<i4 : f32, group 1 by 32, zero_point>} : () -> tensor<?x8x!nquant.quantized<i8 : f32, tensor>, #graph.dims<affine_map<(b, s, c) -> (b, 8)>>>
  func.return
}

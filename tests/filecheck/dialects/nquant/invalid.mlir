// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// Storage types are those that hardware computes with.
// CHECK: storage type is i16, expected one of i4, i8, ui4, ui8, f8E4M3FN, f8E5M2
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i16 : f32, tensor>>
  func.return
}
// -----

// Quantized values stand for floats.
// CHECK: expressed type is i32, expected f32, bf16 or f16
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : i32, tensor>>
  func.return
}
// -----

// Groups have elements.
// CHECK: groups are of 0, expected at least 1
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, group 1 by 0>>
  func.return
}
// -----

// Floats are stored as they are.
// CHECK: storage type is f8E5M2: floats have no zero point
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<f8E5M2 : f32, tensor, zero_point>>
  func.return
}
// -----

// Unsigned values without a zero point cannot be negative.
// CHECK: storage type is ui8: negative values need a zero point
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<ui8 : f32, tensor>>
  func.return
}
// -----

// The result says the scheme.
// CHECK: expected a quantized tensor, got elements of type i8
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8xi8>
  func.return
}
// -----

// Conversions are between the types of the scheme.
// CHECK: expressed side has element type f32, expected bf16
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : bf16, tensor>>
  func.return
}
// -----

// They keep the shape.
// CHECK: result has shape [4, 9], expected [4, 8]
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x9x!nquant.quantized<i8 : f32, tensor>>
  func.return
}
// -----

// One scale per channel.
// CHECK: scale has shape [8], expected [4]
func.func @f(%x : tensor<4x8xf32>, %s : tensor<8xf32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, channel 0>>
  func.return
}
// -----

// Channels are indices of a dimension.
// CHECK: axis is 2, the tensor has shape [4, 8]
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, channel 2>>
  func.return
}
// -----

// Groups divide their dimension.
// CHECK: dimension 1 of [4, 8] is cut into groups of 3
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, group 1 by 3>>
  func.return
}
// -----

// Scales are floats.
// CHECK: scale has element type i32, expected a float
func.func @f(%x : tensor<4x8xf32>, %s : tensor<i32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, tensor>>
  func.return
}
// -----

// A symmetric scheme has no zero points.
// CHECK: the scheme has none, and some are given
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>, %z : tensor<i32>) {
  %q = nquant.quantize %x, %s zero_point %z : tensor<4x8x!nquant.quantized<i8 : f32, tensor>>
  func.return
}
// -----

// Another has.
// CHECK: the scheme has zero points, and none are given
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>) {
  %q = nquant.quantize %x, %s : tensor<4x8x!nquant.quantized<i8 : f32, tensor, zero_point>>
  func.return
}
// -----

// They are i32.
// CHECK: zero_point has element type i8, expected i32
func.func @f(%x : tensor<4x8xf32>, %s : tensor<f32>, %z : tensor<i8>) {
  %q = nquant.quantize %x, %s zero_point %z : tensor<4x8x!nquant.quantized<i8 : f32, tensor, zero_point>>
  func.return
}

// RUN: irc opt %s -p raise-rms-norm,dce | filecheck %s

graph.weight @w : tensor<8xf32> sources [{file = "a"}]
graph.weight @v : tensor<8xbf16> sources [{file = "a"}]

// Plain f32, as in Llama: the weight on either side, the result keeps its name and module.
// CHECK: func.func @plain
func.func @plain(%x : tensor<2x8xf32>) -> tensor<2x8xf32> {
  // CHECK-NEXT: %w = graph.param @w
  // CHECK-NEXT: %y = graph.rms_norm %x, %w eps 1.0e-05 : tensor<2x8xf32> {module = "norm"}
  // CHECK-NEXT: func.return %y
  %square = graph.mul %x, %x : tensor<2x8xf32>
  %mean = graph.reduce mean %square dims [1] keepdims : tensor<2x1xf32>
  %eps = graph.constant dense<1.0e-05> : tensor<f32>
  %total = graph.add %mean, %eps : tensor<2x1xf32>
  %scale = graph.rsqrt %total : tensor<2x1xf32>
  %normal = graph.mul %x, %scale : tensor<2x8xf32>
  %w = graph.param @w : tensor<8xf32>
  %y = graph.mul %w, %normal : tensor<2x8xf32> {module = "norm"}
  func.return %y : tensor<2x8xf32>
}

// In bf16 the model computes in f32 between two casts; the norm says so by itself.
// CHECK: func.func @narrow
func.func @narrow(%x : tensor<2x8xbf16>) -> tensor<2x8xbf16> {
  // CHECK-NEXT: %w = graph.param @v
  // CHECK-NEXT: %y = graph.rms_norm %x, %w eps 1.0e-06 : tensor<2x8xbf16>
  // CHECK-NEXT: func.return %y
  %wide = graph.cast %x : tensor<2x8xf32>
  %square = graph.mul %wide, %wide : tensor<2x8xf32>
  %mean = graph.reduce mean %square dims [1] keepdims : tensor<2x1xf32>
  %eps = graph.constant dense<1.0e-06> : tensor<f32>
  %total = graph.add %mean, %eps : tensor<2x1xf32>
  %scale = graph.rsqrt %total : tensor<2x1xf32>
  %normal = graph.mul %wide, %scale : tensor<2x8xf32>
  %rounded = graph.cast %normal : tensor<2x8xbf16>
  %w = graph.param @v : tensor<8xbf16>
  %y = graph.mul %w, %rounded : tensor<2x8xbf16>
  func.return %y : tensor<2x8xbf16>
}

// Gemma stores the weight less one, and rounds only the product.
// CHECK: func.func @gemma
func.func @gemma(%x : tensor<2x8xbf16>) -> tensor<2x8xbf16> {
  // CHECK-NEXT: %w = graph.param @v
  // CHECK-NEXT: %{{.*}} = graph.rms_norm %x, %w eps 1.0e-06 offset 1.0 : tensor<2x8xbf16>
  // CHECK-NEXT: func.return
  %wide = graph.cast %x : tensor<2x8xf32>
  %square = graph.mul %wide, %wide : tensor<2x8xf32>
  %mean = graph.reduce mean %square dims [1] keepdims : tensor<2x1xf32>
  %eps = graph.constant dense<1.0e-06> : tensor<f32>
  %total = graph.add %mean, %eps : tensor<2x1xf32>
  %scale = graph.rsqrt %total : tensor<2x1xf32>
  %normal = graph.mul %wide, %scale : tensor<2x8xf32>
  %w = graph.param @v : tensor<8xbf16>
  %up = graph.cast %w : tensor<8xf32>
  %one = graph.constant dense<1.0> : tensor<f32>
  %factor = graph.add %one, %up : tensor<8xf32>
  %y = graph.mul %normal, %factor : tensor<2x8xf32>
  %z = graph.cast %y : tensor<2x8xbf16>
  func.return %z : tensor<2x8xbf16>
}

// Where nothing rounds the result, the norm is in f32; a value that was rounded before stays rounded.
// CHECK: func.func @wide
func.func @wide(%x : tensor<2x8xf32>) -> tensor<2x8xf32> {
  // CHECK-NEXT: %narrow = graph.cast %x : tensor<2x8xbf16>
  // CHECK-NEXT: %wide = graph.cast %narrow : tensor<2x8xf32>
  // CHECK: graph.rms_norm %wide, %w eps 1.0e-05 : tensor<2x8xf32>
  %narrow = graph.cast %x : tensor<2x8xbf16>
  %wide = graph.cast %narrow : tensor<2x8xf32>
  %square = graph.mul %wide, %wide : tensor<2x8xf32>
  %mean = graph.reduce mean %square dims [1] keepdims : tensor<2x1xf32>
  %eps = graph.constant dense<1.0e-05> : tensor<f32>
  %total = graph.add %mean, %eps : tensor<2x1xf32>
  %scale = graph.rsqrt %total : tensor<2x1xf32>
  %normal = graph.mul %wide, %scale : tensor<2x8xf32>
  %w = graph.param @w : tensor<8xf32>
  %y = graph.mul %w, %normal : tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// No norm: the mean is over another dimension.
// CHECK: func.func @other_dimension
// CHECK-NOT: graph.rms_norm
func.func @other_dimension(%x : tensor<8x8xf32>) -> tensor<8x8xf32> {
  %square = graph.mul %x, %x : tensor<8x8xf32>
  %mean = graph.reduce mean %square dims [0] keepdims : tensor<1x8xf32>
  %eps = graph.constant dense<1.0e-05> : tensor<f32>
  %total = graph.add %mean, %eps : tensor<1x8xf32>
  %scale = graph.rsqrt %total : tensor<1x8xf32>
  %normal = graph.mul %x, %scale : tensor<8x8xf32>
  %w = graph.param @w : tensor<8xf32>
  %y = graph.mul %w, %normal : tensor<8x8xf32>
  func.return %y : tensor<8x8xf32>
}

// Nor here: a sum instead of a mean, another value scaled, a factor that is no weight.
// CHECK: func.func @near_misses
// CHECK-NOT: graph.rms_norm
func.func @near_misses(%x : tensor<2x8xf32>, %z : tensor<2x8xf32>, %f : tensor<8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) {
  %square = graph.mul %x, %x : tensor<2x8xf32>
  %eps = graph.constant dense<1.0e-05> : tensor<f32>
  %w = graph.param @w : tensor<8xf32>
  %sum = graph.reduce sum %square dims [1] keepdims : tensor<2x1xf32>
  %0 = graph.add %sum, %eps : tensor<2x1xf32>
  %1 = graph.rsqrt %0 : tensor<2x1xf32>
  %2 = graph.mul %x, %1 : tensor<2x8xf32>
  %a = graph.mul %w, %2 : tensor<2x8xf32>
  %mean = graph.reduce mean %square dims [1] keepdims : tensor<2x1xf32>
  %3 = graph.add %mean, %eps : tensor<2x1xf32>
  %4 = graph.rsqrt %3 : tensor<2x1xf32>
  %5 = graph.mul %z, %4 : tensor<2x8xf32>
  %b = graph.mul %w, %5 : tensor<2x8xf32>
  %6 = graph.mul %x, %4 : tensor<2x8xf32>
  %c = graph.mul %f, %6 : tensor<2x8xf32>
  func.return %a, %b, %c : tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>
}

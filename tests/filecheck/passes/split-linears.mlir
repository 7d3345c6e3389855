// RUN: irc opt %s -p 'split-linears' | filecheck %s

// CHECK-DAG: graph.weight @"qkv~{{[12]}}" : tensor<4x6xf32> sources [{op = "slice", dim = 0 : i64, start = 0 : i64, stop = 4 : i64, source = {file = "w"}}]
// CHECK-DAG: graph.weight @"qkv~{{[12]}}" : tensor<4x6xf32> sources [{op = "slice", dim = 0 : i64, start = 4 : i64, stop = 8 : i64, source = {file = "w"}}]
// CHECK: graph.weight @whole : tensor<8x6xf32>
builtin.module {
  graph.weight @qkv : tensor<8x6xf32> sources [{file = "w"}]
  graph.weight @bias : tensor<8xf32> sources [{file = "b"}]
  graph.weight @whole : tensor<8x6xf32> sources [{file = "w"}]
  // Each part gets its rows of weight and bias; within rows the slice goes, and the argument is narrower.
  // CHECK-LABEL: func.func @fused
  // CHECK: %[[HIGH:.*]] = graph.linear %x, %{{.*}} bias %{{.*}} : tensor<1x2x4xf32> {module = "qkv"}
  // CHECK: %[[LOW:.*]] = graph.linear %x, %{{.*}} bias %{{.*}} : tensor<1x2x4xf32> {module = "qkv"}
  // CHECK: graph.rows(%{{.*}} : tensor<1x2x4xf32> = %[[HIGH]] along 1) along [1] : tensor<1x2x4xf32> {
  // CHECK-NEXT: graph.relu
  // CHECK: func.return %[[LOW]]
  func.func @fused(%x: tensor<1x2x6xf32>) -> (tensor<1x2x4xf32>, tensor<1x2x4xf32>) {
    %w = graph.param @qkv : tensor<8x6xf32>
    %b = graph.param @bias : tensor<8xf32>
    %y = graph.linear %x, %w bias %b : tensor<1x2x8xf32> {module = "qkv"}
    %low = graph.slice %y [:, :, :4] : tensor<1x2x4xf32>
    %high = graph.rows(%z : tensor<1x2x8xf32> = %y along 1) along [1] : tensor<1x2x4xf32> {
      %part = graph.slice %z [:, :, 4:8] : tensor<1x2x4xf32>
      %act = graph.relu %part : tensor<1x2x4xf32>
      graph.yield %act
    }
    func.return %low, %high : tensor<1x2x4xf32>, tensor<1x2x4xf32>
  }
  // A result that something reads as a whole stays.
  // CHECK-LABEL: func.func @kept
  // CHECK: graph.linear %x, %w : tensor<1x2x8xf32>
  func.func @kept(%x: tensor<1x2x6xf32>) -> (tensor<1x2x4xf32>, tensor<1x2x8xf32>) {
    %w = graph.param @whole : tensor<8x6xf32>
    %y = graph.linear %x, %w : tensor<1x2x8xf32>
    %low = graph.slice %y [:, :, :4] : tensor<1x2x4xf32>
    func.return %low, %y : tensor<1x2x4xf32>, tensor<1x2x8xf32>
  }
}

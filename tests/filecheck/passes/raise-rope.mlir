// RUN: irc opt %s -p raise-rope,dce | filecheck %s

// The halves of each head are swapped, the second negated; tables lose the dimension of heads they were given.
// CHECK: func.func @halves
func.func @halves(%x : tensor<1x4x3x8xf32>, %cos : tensor<1x3x8xf32>, %sin : tensor<1x3x8xf32>) -> tensor<1x4x3x8xf32> {
  // CHECK-NEXT: %y = graph.rope %x, %cos, %sin : tensor<1x4x3x8xf32> {module = "self_attn"}
  // CHECK-NEXT: func.return %y
  %c = graph.reshape %cos : tensor<1x1x3x8xf32>
  %s = graph.reshape %sin : tensor<1x1x3x8xf32>
  %a = graph.mul %x, %c : tensor<1x4x3x8xf32>
  %low = graph.slice %x [:, :, :, :4] : tensor<1x4x3x4xf32>
  %high = graph.slice %x [:, :, :, 4:] : tensor<1x4x3x4xf32>
  %minus = graph.neg %high : tensor<1x4x3x4xf32>
  %turned = graph.concat %minus, %low dim 3 : tensor<1x4x3x8xf32>
  %b = graph.mul %turned, %s : tensor<1x4x3x8xf32>
  %y = graph.add %a, %b : tensor<1x4x3x8xf32> {module = "self_attn"}
  func.return %y : tensor<1x4x3x8xf32>
}

// The same with every product and the sum turned round, sizes symbolic, and tables that come with four dimensions.
!x = tensor<?x4x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, 4, s, 8)>>>
!half = tensor<?x4x?x4xf32, #graph.dims<affine_map<(b, s, c) -> (b, 4, s, 4)>>>
!table = tensor<?x1x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, 1, s, 8)>>>
// CHECK: func.func @symbolic
func.func @symbolic(%x : !x, %cos : !table, %sin : !table) -> !x {
  // CHECK-NEXT: %0 = graph.reshape %cos : !t_batch_seq_8_f32
  // CHECK-NEXT: %1 = graph.reshape %sin : !t_batch_seq_8_f32
  // CHECK-NEXT: %y = graph.rope %x, %0, %1 : !t_batch_4_seq_8_f32
  %low = graph.slice %x [:, :, :, 0:4] : !half
  %high = graph.slice %x [:, :, :, 4:8] : !half
  %minus = graph.neg %high : !half
  %turned = graph.concat %minus, %low dim 3 : !x
  %b = graph.mul %sin, %turned : !x
  %a = graph.mul %cos, %x : !x
  %y = graph.add %b, %a : !x
  func.return %y : !x
}

// Neighbours are pairs: every second element negated, stacked with the others.
// CHECK: func.func @neighbours
func.func @neighbours(%x : tensor<1x4x3x8xf32>, %c : tensor<1x1x3x8xf32>, %s : tensor<1x1x3x8xf32>) -> tensor<1x4x3x8xf32> {
  // CHECK: %y = graph.rope %x, %{{.*}}, %{{.*}} interleaved : tensor<1x4x3x8xf32>
  %a = graph.mul %x, %c : tensor<1x4x3x8xf32>
  %even = graph.slice %x [:, :, :, ::2] : tensor<1x4x3x4xf32>
  %odd = graph.slice %x [:, :, :, 1::2] : tensor<1x4x3x4xf32>
  %minus = graph.neg %odd : tensor<1x4x3x4xf32>
  %first = graph.reshape %minus : tensor<1x4x3x4x1xf32>
  %second = graph.reshape %even : tensor<1x4x3x4x1xf32>
  %stacked = graph.concat %first, %second dim 4 : tensor<1x4x3x4x2xf32>
  %turned = graph.reshape %stacked : tensor<1x4x3x8xf32>
  %b = graph.mul %turned, %s : tensor<1x4x3x8xf32>
  %y = graph.add %a, %b : tensor<1x4x3x8xf32>
  func.return %y : tensor<1x4x3x8xf32>
}

// The first four of eight elements are rotated, the others joined unchanged.
// CHECK: func.func @part
func.func @part(%x : tensor<1x4x3x8xf32>, %c : tensor<1x3x4xf32>, %s : tensor<1x3x4xf32>) -> tensor<1x4x3x8xf32> {
  // CHECK-NEXT: %y = graph.rope %x, %c, %s : tensor<1x4x3x8xf32>
  // CHECK-NEXT: func.return %y
  %front = graph.slice %x [:, :, :, :4] : tensor<1x4x3x4xf32>
  %rest = graph.slice %x [:, :, :, 4:] : tensor<1x4x3x4xf32>
  %turned = graph.rope %front, %c, %s : tensor<1x4x3x4xf32>
  %y = graph.concat %turned, %rest dim 3 : tensor<1x4x3x8xf32>
  func.return %y : tensor<1x4x3x8xf32>
}

// Not so where the rest is another's.
// CHECK: func.func @other_rest
func.func @other_rest(%x : tensor<1x4x3x8xf32>, %z : tensor<1x4x3x8xf32>, %c : tensor<1x3x4xf32>, %s : tensor<1x3x4xf32>) -> tensor<1x4x3x8xf32> {
  // CHECK: graph.concat
  %front = graph.slice %x [:, :, :, :4] : tensor<1x4x3x4xf32>
  %rest = graph.slice %z [:, :, :, 4:] : tensor<1x4x3x4xf32>
  %turned = graph.rope %front, %c, %s : tensor<1x4x3x4xf32>
  %y = graph.concat %turned, %rest dim 3 : tensor<1x4x3x8xf32>
  func.return %y : tensor<1x4x3x8xf32>
}

// No rotation: the first half is negated instead of the second.
// CHECK: func.func @other_half
// CHECK-NOT: graph.rope
func.func @other_half(%x : tensor<1x4x3x8xf32>, %c : tensor<1x1x3x8xf32>) -> tensor<1x4x3x8xf32> {
  %a = graph.mul %x, %c : tensor<1x4x3x8xf32>
  %low = graph.slice %x [:, :, :, :4] : tensor<1x4x3x4xf32>
  %high = graph.slice %x [:, :, :, 4:] : tensor<1x4x3x4xf32>
  %minus = graph.neg %low : tensor<1x4x3x4xf32>
  %turned = graph.concat %minus, %high dim 3 : tensor<1x4x3x8xf32>
  %b = graph.mul %turned, %c : tensor<1x4x3x8xf32>
  %y = graph.add %a, %b : tensor<1x4x3x8xf32>
  func.return %y : tensor<1x4x3x8xf32>
}

// Nor here: the parts are no halves, or the table differs from head to head.
// CHECK: func.func @near_misses
// CHECK-NOT: graph.rope
func.func @near_misses(%x : tensor<1x4x3x8xf32>, %c : tensor<1x1x3x8xf32>, %h : tensor<1x4x3x8xf32>) -> (tensor<1x4x3x8xf32>, tensor<1x4x3x8xf32>) {
  %a = graph.mul %x, %c : tensor<1x4x3x8xf32>
  %0 = graph.slice %x [:, :, :, :2] : tensor<1x4x3x2xf32>
  %1 = graph.slice %x [:, :, :, 2:] : tensor<1x4x3x6xf32>
  %2 = graph.neg %1 : tensor<1x4x3x6xf32>
  %3 = graph.concat %2, %0 dim 3 : tensor<1x4x3x8xf32>
  %4 = graph.mul %3, %c : tensor<1x4x3x8xf32>
  %y = graph.add %a, %4 : tensor<1x4x3x8xf32>
  %5 = graph.slice %x [:, :, :, :4] : tensor<1x4x3x4xf32>
  %6 = graph.slice %x [:, :, :, 4:] : tensor<1x4x3x4xf32>
  %7 = graph.neg %6 : tensor<1x4x3x4xf32>
  %8 = graph.concat %7, %5 dim 3 : tensor<1x4x3x8xf32>
  %9 = graph.mul %8, %h : tensor<1x4x3x8xf32>
  %z = graph.add %a, %9 : tensor<1x4x3x8xf32>
  func.return %y, %z : tensor<1x4x3x8xf32>, tensor<1x4x3x8xf32>
}

// RUN: irc opt %s -p hoist-repeats,dce | filecheck %s

!column = tensor<?x?x1xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 1)>>>
!half = tensor<?x?x2xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 2)>>>
!whole = tensor<?x?x4xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 4)>>>

// Two halves alike: the constants are repeated instead, and everything between is computed whole.
// CHECK: func.func @halves
func.func @halves(%p : !column) -> !whole {
  // CHECK-NEXT: %f = graph.constant dense<[1.000000e+00, 5.000000e-01, 1.000000e+00, 5.000000e-01]> : tensor<4xf32>
  // CHECK-NEXT: %a = graph.mul %p, %f : !t_batch_seq_4_f32 {module = "rotary_emb"}
  // CHECK-NEXT: %y = graph.neg %a
  // CHECK-NEXT: func.return %y
  %f = graph.constant dense<[1.0, 0.5]> : tensor<2xf32>
  %a = graph.mul %p, %f : !half {module = "rotary_emb"}
  %n = graph.neg %a : !half
  %y = graph.concat %n, %n dim 2 : !whole
  func.return %y : !whole
}

// Neighbours alike, with a choice between two tables by a number.
!stacked = tensor<?x?x2x1xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 2, 1)>>>
!spread = tensor<?x?x2x2xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 2, 2)>>>
// CHECK: func.func @neighbours
func.func @neighbours(%p : !column, %long : tensor<i1>) -> !whole {
  // CHECK-DAG: %f = graph.constant dense<[1.000000e+00, 1.000000e+00, 5.000000e-01, 5.000000e-01]>
  // CHECK-DAG: %g = graph.constant dense<[2.000000e+00, 2.000000e+00, 3.000000e+00, 3.000000e+00]>
  // CHECK: graph.where %long, %f, %g : tensor<4xf32>
  // CHECK-NEXT: %y = graph.mul
  // CHECK-NEXT: func.return %y
  %f = graph.constant dense<[1.0, 0.5]> : tensor<2xf32>
  %g = graph.constant dense<[2.0, 3.0]> : tensor<2xf32>
  %t = graph.where %long, %f, %g : tensor<2xf32>
  %a = graph.mul %p, %t : !half
  %s = graph.reshape %a : !stacked
  %b = graph.broadcast %s : !spread
  %y = graph.reshape %b : !whole
  func.return %y : !whole
}

// One column twice: there is no constant to repeat.
!one = tensor<?x?x1xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 1)>>>
// CHECK: func.func @column
func.func @column(%p : !one) -> !half {
  // CHECK-NEXT: %n = graph.neg %p
  // CHECK-NEXT: %y = graph.concat %n, %n dim 2
  %n = graph.neg %p : !one
  %y = graph.concat %n, %n dim 2 : !half
  func.return %y : !half
}

// What is no table stays: the repeated value has two columns of its own, or the parts differ.
// CHECK: func.func @kept
func.func @kept(%x : !half, %z : !half) -> (!whole, !whole) {
  // CHECK: graph.neg %x : !t_batch_seq_2_f32
  // CHECK: graph.concat
  // CHECK: graph.concat %x, %z
  %n = graph.neg %x : !half
  %0 = graph.concat %n, %n dim 2 : !whole
  %1 = graph.concat %x, %z dim 2 : !whole
  func.return %0, %1 : !whole, !whole
}

// RUN: irc opt %s -p 'verify-legality{phase=specialize}' | filecheck %s
// RUN: not irc opt %s -p 'verify-legality{phase=tile}' | filecheck %s --check-prefix=TILE

// A static function of the tensor level is legal after specialize.
// CHECK: func.func @body
func.func @body(%x : tensor<1x4xf32>) -> tensor<1x4xf32> {
  // CHECK-NEXT: graph.silu
  %y = graph.silu %x : tensor<1x4xf32> {module = "model.layers.{}.mlp.act_fn"}
  func.return %y : tensor<1x4xf32>
}

// After tile no tensor may be left, and the error names the checkpoint's module.
// TILE: illegal after phase tile
// TILE-NEXT: @body: func.func has a value of type tensor<1x4xf32>: tensor
// TILE-NEXT: model.layers.{}.mlp.act_fn: graph.silu may not occur
// TILE-NOT: func.return

// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xf32, #tile.sliced<4>>
!P = tensor<2x1x96xi1, #tile.sliced<4>>
!B = tensor<2x1x96xbf16, #tile.sliced<4>>
!V = tensor<96xf32, #tile.sliced<4>>

graph.weight @n : tensor<96xf32> layers [0] sources [{file = "a"}]
tile.packed @p of @n : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] layers [0] offset 0 stride 1024

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // A chain of elementwise operations is one pass: constants are immediates, the second tensor is the operand port.
  // The carried value is updated in place at the end.
  // CHECK: func.func private @chain(%layer: index, %x: memref<64x2x1x4xf32, "dm">, %y: memref<64x2x1x4xf32, "dm">)
  func.func private @chain(%x : !L, %y : !L) -> !L {
    // CHECK-NEXT: %z = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [8] stream(%x strides [1]) out(%z strides [1]) operand(%y strides [1]) chain [sigmoid, mul stash, rsub 1.0, mul operand] {module = "act"}
    // CHECK-NEXT: tile.pass [8] stream(%z strides [1]) out(%x strides [1]) {module = "act"}
    // CHECK-NEXT: func.return
    %one = graph.constant dense<1.0> : tensor<f32>
    %a = graph.silu %x : !L
    %b = graph.sub %one, %a : !L
    %z = graph.mul %b, %y : !L {module = "act"}
    func.return %z : !L
  }

  // A chain ends where the IR rounds: the next pass begins with what was stored.
  // CHECK: func.func private @rounded
  func.func private @rounded(%x : !L) -> !L {
    // CHECK-NEXT: %b = tile.alloc : memref<64x2x1x4xbf16, "dm">
    // CHECK-NEXT: tile.pass [8] stream(%x strides [1]) out(%b strides [1]) chain [exp]
    // CHECK-NEXT: %d = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [8] stream(%b strides [1]) out(%d strides [1]) chain [sqrt]
    // CHECK-NEXT: tile.pass [8] stream(%d strides [1]) out(%x strides [1])
    %a = graph.exp %x : !L
    %b = graph.cast %a : !B
    %c = graph.cast %b : !L
    %d = graph.sqrt %c : !L
    func.return %d : !L
  }

  // A value with two users is stored; a third tensor needs a pass of its own.
  // CHECK: func.func private @shared
  func.func private @shared(%x : !L, %y : !L) -> !L {
    // CHECK-NEXT: %a = tile.alloc
    // CHECK-NEXT: tile.pass [8] stream(%x strides [1]) out(%a strides [1]) chain [exp]
    %a = graph.exp %x : !L
    // CHECK-NEXT: %b = tile.alloc
    // CHECK-NEXT: tile.pass [8] stream(%a strides [1]) out(%b strides [1]) operand(%y strides [1]) chain [add operand]
    %b = graph.add %a, %y : !L
    // CHECK-NEXT: %c = tile.alloc
    // CHECK-NEXT: tile.pass [8] stream(%b strides [1]) out(%c strides [1]) operand(%a strides [1]) chain [mul operand]
    %c = graph.mul %b, %a : !L
    func.return %c : !L
  }

  // A vector broadcasts by stride 0; a weight is brought next to the slices first.
  // CHECK: func.func private @broadcast
  func.func private @broadcast(%x : !L) -> !L {
    %n = graph.param @p : !V
    // CHECK-NEXT: %n = tile.weight @p[%layer] : memref<64x1x4xf32, "hbm">
    // CHECK-NEXT: %n_1 = tile.alloc : memref<64x1x4xf32, "dm">
    // CHECK-NEXT: tile.copy [64, 4] src(%n strides [4, 1]) dst(%n_1 strides [0, 1] slices [1, 0])
    // CHECK-NEXT: %y = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 4] stream(%x strides [4, 1]) out(%y strides [4, 1]) operand(%n_1 strides [0, 1]) chain [mul operand]
    %y = graph.mul %x, %n : !L
    func.return %y : !L
  }

  // Predicates are 1.0 and 0.0; a choice selects. Operands are widened as they are fetched, results rounded as they
  // are stored.
  // CHECK: func.func private @choice
  func.func private @choice(%x : !B, %y : !L) -> !B {
    // CHECK-NEXT: %c = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: %p = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [8] stream(%x strides [1]) out(%p strides [1]) operand(%y strides [1]) chain [gt operand]
    // CHECK-NEXT: tile.pass [8] stream(%y strides [1]) out(%c strides [1]) operand(%p strides [1]) chain [select operand else -1.0]
    // CHECK-NEXT: %n = tile.alloc : memref<64x2x1x4xbf16, "dm">
    // CHECK-NEXT: tile.pass [8] stream(%c strides [1]) out(%n strides [1])
    %w = graph.cast %x : !L
    %p = graph.gt %w, %y : !P
    %low = graph.constant dense<-1.0> : tensor<f32>
    %c = graph.where %p, %y, %low : !L
    %n = graph.cast %c : !B
    func.return %n : !B
  }
}

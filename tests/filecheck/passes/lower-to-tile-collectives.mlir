// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!Few = tensor<1x1x256xf32, #tile.sliced<4>>
!Many = tensor<1x4096x256xf32, #tile.sliced<4>>

builtin.module {
builtin.module @prefill_1x4096 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 4096 : i64, length = 4096 : i64}} {
  // A rank writes its values, from one slice where they are few; it adds up its share of everybody's when all
  // have written theirs; it reads all sums when all have written theirs.
  // CHECK-LABEL: func.func private @few
  func.func private @few(%x : !Few) -> !Few {
    // CHECK-NEXT: %[[RANK:.*]] = tile.rank : index
    // CHECK-NEXT: %values = tile.shared 0 : memref<2x64x4xf32, "hbm">
    // CHECK-NEXT: %[[TOGETHER:.*]] = tile.alloc : memref<64x256xf32, "dm">
    // CHECK-NEXT: tile.pass [64, 4] ring 0 stream(%x strides [0, 1] slices [1, 0]) out(%[[TOGETHER]] strides [4, 1])
    // CHECK-NEXT: tile.copy [256] src(%[[TOGETHER]] strides [1]) dst(%values + 256 * %[[RANK]] strides [1])
    // CHECK-NEXT: %[[PARTS:.*]] = tile.alloc : memref<64x2x2xf32, "dm">
    // CHECK-NEXT: tile.copy [64, 2, 2] src(%values + 2 * %[[RANK]] strides [4, 256, 1]) dst(%[[PARTS]] strides [0, 2, 1] slices [1, 0, 0]) meet
    // CHECK-NEXT: %[[SUM:.*]] = tile.alloc : memref<64x2xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 2] reduce [1] stream(%[[PARTS]] strides [1, 2]) out(%[[SUM]] strides [1, 0]) chain [reduce_add]
    // CHECK-NEXT: %sums = tile.shared 1 : memref<2x64x2xf32, "hbm">
    // CHECK: tile.copy [64, 2, 2] src(%sums strides [2, 128, 1]) dst(%{{.*}} strides [0, 2, 1] slices [1, 0, 0]) meet
    %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 2> : !Few
    func.return %y : !Few
  }

  // Where there is more, every slice writes its own run.
  // CHECK-LABEL: func.func private @many
  func.func private @many(%x : !Many) -> !Many {
    // CHECK: tile.copy [64, 16384] src(%x strides [0, 1] slices [1, 0]) dst(%values + 1048576 * %{{.*}} strides [16384, 1])
    // What is kept runs inside the reduced loop, so that fetches are runs.
    // CHECK: tile.pass [1024, 2, 8] reduce [1] stream(%{{.*}} strides [8, 8192, 1]) out(%{{.*}} strides [8, 0, 1]) chain [reduce_add]
    %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 2> : !Many
    func.return %y : !Many
  }

  // Sixteen ranks are on two chips: between the halves each reads its share of both chips' sums. The next
  // all-reduce shows its own in another buffer.
  // CHECK-LABEL: func.func private @chips
  func.func private @chips(%x : !Few) -> !Few {
    // CHECK-NEXT: %rank = tile.rank : index
    // CHECK-NEXT: %chip = tile.chip : index
    // CHECK-NEXT: %core = tile.sum %rank + -8 * %chip
    // CHECK: tile.copy [64, 8, 2] src(%values + 2 * %core strides [16, 1024, 1]) dst(%[[PARTS:.*]] strides [0, 2, 1] slices [1, 0, 0]) meet{{$}}
    // CHECK: %[[OWN:.*]] = tile.shared 2 : memref<8x64x2xf32, "hbm">
    // CHECK: tile.copy [128] src(%{{.*}} strides [1]) dst(%[[OWN]] + 128 * %core strides [1])
    // CHECK-NEXT: %[[ALL:.*]] = tile.shared 2 system : memref<2x8x64x2xf32, "hbm">
    // CHECK: tile.copy [64, 2, 2] src(%[[ALL]] + 128 * %core strides [2, 0, 1] slices [0, 1, 0]) dst(%{{.*}} strides [0, 2, 1] slices [1, 0, 0]) meet system
    // CHECK: tile.copy [64, 8, 2] src(%sums strides [2, 128, 1]) dst(%{{.*}} strides [0, 2, 1] slices [1, 0, 0]) meet{{$}}
    %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 16> : !Few
    // CHECK: tile.shared 3 system
    %z = dist.all_reduce sum %y over [tp] mesh #dist.mesh<tp = 16> : !Few
    func.return %z : !Few
  }

  // Without another one around it, all chips meet at the end.
  // CHECK-LABEL: func.func private @one
  func.func private @one(%x : !Few) -> !Few {
    // CHECK: src(%sums strides {{.*}}) meet system
    %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 16> : !Few
    func.return %y : !Few
  }

  // On four chips each adds up a piece of every share, if that much is to be read: else there is but one step.
  // CHECK-LABEL: func.func private @pieces
  func.func private @pieces(%x : !Many, %y : !Few) -> (!Many, !Few) {
    // CHECK: %[[ALL:.*]] = tile.shared 5 system : memref<4x8x64x2048xf32, "hbm">
    // CHECK: tile.copy [64, 4, 512] src(%[[ALL]] + 131072 * %core + 512 * %chip strides [2048, 0, 1] slices [0, 1, 0]) dst(%{{.*}} strides [0, 512, 1] slices [1, 0, 0]) meet system
    // CHECK: %[[SUMS:.*]] = tile.shared 6 system : memref<4x8x64x512xf32, "hbm">
    // CHECK: tile.copy [64, 4, 512] src(%[[SUMS]] + 32768 * %core strides [512, 0, 1] slices [0, 1, 0]) dst(%{{.*}} strides [0, 512, 1] slices [1, 0, 0]) meet system
    %z = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 32> : !Many
    // CHECK: tile.shared 4 system : memref<4x8x64x2xf32, "hbm">
    %w = dist.all_reduce sum %y over [tp] mesh #dist.mesh<tp = 32> : !Few
    func.return %z, %w : !Many, !Few
  }

  // Each rank writes its columns of the logits, brought together first: small pieces are slow to write.
  // CHECK-LABEL: func.func private @head_last
  func.func private @head_last(%x : !Few) -> tensor<1x1x512xf32, #tile.host> {
    // CHECK: %[[RANK:.*]] = tile.rank : index
    // CHECK: tile.pass [64, 4] ring 0 stream(%x strides [0, 1] slices [1, 0]) out(%[[ROW:.*]] strides [4, 1])
    // CHECK: tile.copy [256] src(%[[ROW]] strides [1]) dst(%result + 256 * %[[RANK]] strides [1])
    // CHECK-NOT: meet
    %y = dist.all_gather %x dim 2 over [tp] mesh #dist.mesh<tp = 2> : tensor<1x1x512xf32, #tile.host>
    func.return %y : tensor<1x1x512xf32, #tile.host>
  }
}
}

// RUN: irc opt %s -p 'stagger-rows{target="rngd"}' | filecheck %s

!hidden = tensor<1x512x2048xbf16>
!wide = tensor<1x512x1024xbf16>
!short = tensor<1x128x2048xbf16>
!small = tensor<1x512x64xbf16>

graph.weight @n : tensor<2x2048xbf16> sources [{file = "a"}]
graph.weight @o : tensor<2048x2048xbf16> sources [{file = "a"}]
graph.weight @up : tensor<1024x2048xbf16> sources [{file = "a"}]
graph.weight @down : tensor<2048x1024xbf16> sources [{file = "a"}]
graph.cache_decl @cache layers [0] heads 16 key_size 128 value_size 128 type bf16
graph.weight @square : tensor<64x64xbf16> sources [{file = "a"}]

builtin.module @prefill_1x512 attributes {npuc.spread} {
  // What leads from a linear layer to the end by way of all-reduces is done for half of the rows at a time. What
  // others need too is made before (the norm, which the cache takes), and what has no rows is whole in both.
  // CHECK: func.func private @layer
  func.func private @layer(%x : !hidden) -> !hidden {
    // CHECK: %y = graph.rms_norm
    // CHECK: graph.kv_update
    // CHECK: %z = graph.rows(%y_1 : tensor<1x256x2048xbf16> = %y along 1, %x_1 : tensor<1x256x2048xbf16> = %x along 1, %second_1 : tensor<2048xbf16> = %second) along [1] : tensor<1x512x2048xbf16> {
    // CHECK-NEXT: graph.param @o
    // CHECK-NEXT: %a = graph.linear %y_1, {{.*}} : tensor<1x256x2048xbf16>
    // CHECK-NEXT: %s = dist.all_reduce sum %a {{.*}} : tensor<1x256x2048xbf16>
    // CHECK-NEXT: %r = graph.add %x_1, %s : tensor<1x256x2048xbf16>
    // CHECK-NEXT: %m = graph.rms_norm %r, %second_1
    // CHECK: %t = dist.all_reduce
    // CHECK-NEXT: %[[Z:.*]] = graph.add %r, %t
    // CHECK-NEXT: graph.yield %[[Z]]
    // CHECK-NEXT: } {unrolled}
    // CHECK-NEXT: func.return %z
    %n = graph.param @n : tensor<2x2048xbf16>
    %n1 = graph.slice %n [:1, :2048] : tensor<1x2048xbf16>
    %first = graph.reshape %n1 : tensor<2048xbf16>
    %n2 = graph.slice %n [1:2, :2048] : tensor<1x2048xbf16>
    %second = graph.reshape %n2 : tensor<2048xbf16>
    %o = graph.param @o : tensor<2048x2048xbf16>
    %up = graph.param @up : tensor<1024x2048xbf16>
    %down = graph.param @down : tensor<2048x1024xbf16>
    %y = graph.rms_norm %x, %first eps 1.0e-05 : !hidden
    %keys, %values = graph.kv_update @cache %y, %y : tensor<1x16x512x128xbf16>, tensor<1x16x512x128xbf16>
    %a = graph.linear %y, %o : !hidden
    %s = dist.all_reduce sum %a over [tp] mesh #dist.mesh<tp = 8> : !hidden
    %r = graph.add %x, %s : !hidden
    %m = graph.rms_norm %r, %second eps 1.0e-05 : !hidden
    %u = graph.linear %m, %up : !wide
    %d = graph.linear %u, %down : !hidden
    %t = dist.all_reduce sum %d over [tp] mesh #dist.mesh<tp = 8> : !hidden
    %z = graph.add %r, %t : !hidden
    func.return %z : !hidden
  }

  // Attention begins a group: its tiles are those of what follows it.
  // CHECK: func.func private @attends
  // CHECK-NOT: %v = graph.rows
  // CHECK: %z = graph.rows({{.*}} : tensor<1x256x2048xbf16> = %x along 1, {{.*}} : tensor<1x16x512x128xbf16> = %keys, {{.*}} : tensor<1x16x512x128xbf16> = %values, {{.*}} : tensor<1x1x256x512xi1> = %m along 2) along [1] : tensor<1x512x2048xbf16> {
  // CHECK: %a = graph.attention {{.*}} : tensor<1x256x16x128xbf16>
  // CHECK-NEXT: %f = graph.reshape %a : tensor<1x256x2048xbf16>
  // CHECK-NEXT: graph.param @o
  // CHECK-NEXT: graph.linear %f, {{.*}} : tensor<1x256x2048xbf16>
  // CHECK: dist.all_reduce
  // CHECK: } {unrolled}
  func.func private @attends(%x : !hidden, %m : tensor<1x1x512x512xi1>) -> !hidden {
    %keys, %values = graph.kv_update @cache %x, %x : tensor<1x16x512x128xbf16>, tensor<1x16x512x128xbf16>
    %v = graph.rows(%t : !hidden = %x along 1, %k : tensor<1x16x512x128xbf16> = %keys, %w : tensor<1x16x512x128xbf16> = %values, %n : tensor<1x1x512x512xi1> = %m along 2) along [1] : !hidden {
      %h = graph.reshape %t : tensor<1x512x16x128xbf16>
      %q = graph.transpose %h perm [0, 2, 1, 3] : tensor<1x16x512x128xbf16>
      %a = graph.attention %q, %k, %w mask %n scale 0.5 : tensor<1x512x16x128xbf16>
      %f = graph.reshape %a : !hidden
      graph.yield %f
    }
    %o = graph.param @o : tensor<2048x2048xbf16>
    %l = graph.linear %v, %o : !hidden
    %s = dist.all_reduce sum %l over [tp] mesh #dist.mesh<tp = 8> : !hidden
    %z = graph.add %x, %s : !hidden
    func.return %z : !hidden
  }

  // Without an all-reduce there is nothing to hide.
  // CHECK: func.func private @alone
  // CHECK-NOT: graph.rows
  func.func private @alone(%x : !hidden) -> !hidden {
    %o = graph.param @o : tensor<2048x2048xbf16>
    %a = graph.linear %x, %o : !hidden
    func.return %a : !hidden
  }

  // Sums so small travel faster than more commands start.
  // CHECK: func.func private @small
  // CHECK-NOT: graph.rows
  func.func private @small(%x : !small) -> !small {
    %w = graph.param @square : tensor<64x64xbf16>
    %a = graph.linear %x, %w : !small
    %s = dist.all_reduce sum %a over [tp] mesh #dist.mesh<tp = 8> : !small
    func.return %s : !small
  }
}

builtin.module @prefill_1x128 attributes {npuc.spread} {
  // Of so few rows the weights take too long to be read again.
  // CHECK: func.func private @short
  // CHECK-NOT: graph.rows
  func.func private @short(%x : !short) -> !short {
    %o = graph.param @o : tensor<2048x2048xbf16>
    %a = graph.linear %x, %o : !short
    %s = dist.all_reduce sum %a over [tp] mesh #dist.mesh<tp = 8> : !short
    func.return %s : !short
  }

  // Nor do four cores, whose DMA engines are slower than their share of the main memory.
  // CHECK: func.func private @four
  // CHECK-NOT: graph.rows
  func.func private @four(%x : !short) -> !short {
    %o = graph.param @o : tensor<2048x2048xbf16>
    %a = graph.linear %x, %o : !short
    %s = dist.all_reduce sum %a over [tp] mesh #dist.mesh<tp = 4> : !short
    func.return %s : !short
  }
}

// RUN: irc opt %s -p 'select-commands{target=rngd},allocate-buffers{target=rngd},insert-sync{target=rngd}' | filecheck %s

!host = memref<64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// A load signals the pass that reads it. The call stands between barriers.
// CHECK: func.func @main
func.func @main(%x : !host) {
  %a = "tile.alloc"() : () -> !local
  %b = "tile.alloc"() : () -> !local
  // CHECK: tile.copy
  // CHECK-SAME: signals = [array<i64: 0, 1>]
  "tile.copy"(%x, %a) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  // CHECK-NEXT: tile.pass
  // CHECK-SAME: waits = [array<i64: 0, 1>]
  "tile.pass"(%a, %b) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  // CHECK-NEXT: npu.command{{.*}}barrier
  // CHECK-NEXT: tile.call
  // CHECK-NEXT: npu.command{{.*}}barrier
  "tile.call"(%x) {callee = @loop} : (!host) -> ()
  func.return
}

// Two copies: the load of the iteration after next waits for this one's pass, for which the sequencer gives
// two tokens before the loop; a copy of nothing takes the last two afterwards.
// CHECK: func.func private @loop
func.func private @loop(%x : !host) {
  %sum = "tile.alloc"() : () -> !local
  // CHECK: npu.command{{.*}}signal{{.*}}n = 2
  // CHECK-NEXT: tile.for
  "tile.for"() ({
  ^bb0(%i : index):
    %u = "tile.alloc"() {copies = 2 : i64} : () -> !local
    // CHECK: tile.copy
    // CHECK-SAME: waits = [array<i64: 1, 1>], signals = [array<i64: 0, 1>]
    "tile.copy"(%x, %u) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
    // CHECK: tile.pass
    // CHECK-SAME: waits = [array<i64: 0, 1>], signals = [array<i64: 1, 1>]
    "tile.pass"(%u, %sum) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  }) {count = 4 : i64, start = 0 : i64} : () -> ()
  // CHECK: npu.command{{.*}}dma{{.*}}limit = 0{{.*}}wait [(1, 2)]
  func.return
}

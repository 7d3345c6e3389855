// RUN: irc opt %s -p 'select-commands{target=rngd},allocate-buffers{target=rngd},lower-to-npu{target=rngd}' | filecheck %s

!host = memref<4x64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>, index = [array<i64: 0, 1024>]}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 8 : i64, strides = array<i64: 1>}}

// Entries come first and end with a barrier and halt. Element strides become bytes, a step to the next slice
// becomes a window, and the loop's counter is scaled in a register; two copies alternate by another one.
// CHECK: npu.program
// CHECK: npu.label{{.*}}main
func.func @main(%x : !host) {
  %h = "tile.alloc"() : () -> !local
  // CHECK-NEXT: npu.command{{.*}}set{{.*}}imm = 0}
  // CHECK-NEXT: npu.command{{.*}}loop{{.*}}count = 4
  "tile.for"() ({
  ^bb0(%i : index):
    %u = "tile.alloc"() {copies = 2 : i64} : () -> !local
    // CHECK-NEXT: npu.command{{.*}}mul{{.*}}imm = 4096
    // CHECK-NEXT: npu.command
    // CHECK-SAME: dma
    // CHECK-SAME: src.strides = [64, 4]
    // CHECK-SAME: dst.strides = [4194304, 4]
    "tile.copy"(%x, %u, %i) {operandSegmentSizes = array<i32: 2, 1>, size = array<i64: 64, 16>, ports = #load, module = "model.embed"} : (!host, !local, index) -> ()
    // CHECK-SAME: module = "model.embed", source = "tile.copy"
    // CHECK-NEXT: npu.command{{.*}}mul{{.*}}imm = -1
    // CHECK-NEXT: npu.command{{.*}}add{{.*}}imm = 64
    // CHECK-NEXT: npu.command{{.*}}end
  }) {count = 4 : i64, start = 0 : i64} : () -> ()
  // CHECK-NEXT: npu.command{{.*}}add
  // CHECK-NEXT: npu.command{{.*}}call{{.*}}offset = layer
  "tile.call"(%h) {callee = @layer} : (!local) -> ()
  // CHECK-NEXT: npu.command{{.*}}barrier
  // CHECK-NEXT: npu.command{{.*}}halt
  func.return
}

// Arguments come in registers, which addresses add to their constant part.
// CHECK-NEXT: npu.label{{.*}}layer
func.func private @layer(%h : !local) {
  // CHECK-NEXT: npu.command
  // CHECK-SAME: stream.base = r1,
  // CHECK-SAME: out.base = r1 + 32,
  "tile.pass"(%h, %h) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 8>, ports = #move} : (!local, !local) -> ()
  // CHECK-NEXT: npu.command{{.*}}ret
  func.return
}

// RUN: irc opt %s -p 'select-commands{target=rngd},allocate-buffers{target=rngd}' | filecheck %s

!host = memref<64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// The module says where the regions of main memory are; programs, where their inputs and outputs are.
// CHECK: io = {x = {address = 0 : i64, type = {{.*}}}, logits_main = {address = 4096 : i64
// CHECK-SAME: npuc.memory = {weights = array<i64: 0, 0>, cache = array<i64: 0, 0>, io = array<i64: 0, 8192>, scratch = array<i64: 8192, 0>}

// A callee's buffers lie at the bottom, those of its caller that live across the call above them.
// CHECK: func.func private @layer
func.func private @layer(%h : !local) {
  // CHECK: %t = {{.*}}address = 0 : i64
  %t = "tile.alloc"() : () -> !local
  "tile.pass"(%h, %t) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  "tile.pass"(%t, %h) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  func.return
}
// CHECK: func.func @main
// CHECK-SAME: %x: {{[^ ]+}} {tile.address = 0 : i64}, %logits: {{[^ ]+}} {tile.address = 4096 : i64}
func.func @main(%x : !host, %logits : !host) {
  // CHECK: %h = {{.*}}copy_stride = 64 : i64, address = {{[1-9]}}
  %h = "tile.alloc"() : () -> !local
  "tile.copy"(%x, %h) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  "tile.call"(%h) {callee = @layer} : (!local) -> ()
  // Two copies of a loop's buffer take two places.
  // CHECK: tile.for
  "tile.for"() ({
  ^bb0(%i : index):
    // CHECK: %u = {{.*}}copies = 2 : i64, copy_stride = 64 : i64, address = {{[0-9]+}}
    %u = "tile.alloc"() {copies = 2 : i64} : () -> !local
    "tile.pass"(%h, %u) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  }) {count = 4 : i64, start = 0 : i64} : () -> ()
  func.return
}

// Buffers of which one is dead before the other begins have bytes of their own, lest a copy wait for a pass.
// CHECK: func.func @turns
func.func @turns(%x : !host) {
  // CHECK: %first = {{.*}}address = [[FIRST:[0-9]+]] :
  %first = "tile.alloc"() : () -> !local
  "tile.copy"(%x, %first) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  "tile.pass"(%first, %first) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  // CHECK-NOT: address = [[FIRST]] :
  %second = "tile.alloc"() : () -> !local
  "tile.copy"(%x, %second) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  "tile.pass"(%second, %second) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  func.return
}

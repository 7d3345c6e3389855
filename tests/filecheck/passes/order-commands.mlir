// RUN: irc opt %s -p 'select-commands{target=rngd},order-commands{target=rngd}' | filecheck %s

!host = memref<64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#store = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// The second load does not wait behind the store, which waits for the passes.
// CHECK: func.func @main
func.func @main(%x : !host, %w : !host, %y : !host, %z : !host) {
  %a = "tile.alloc"() : () -> !local
  %b = "tile.alloc"() : () -> !local
  %c = "tile.alloc"() : () -> !local
  %d = "tile.alloc"() : () -> !local
  // CHECK: tile.copy{{.*}}src(%x {{.*}}dst(%a 
  "tile.copy"(%x, %a) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  // CHECK-DAG: tile.copy{{.*}}src(%w {{.*}}dst(%c 
  // CHECK-DAG: tile.pass{{.*}}(%a {{.*}}out(%b 
  // CHECK: tile.copy{{.*}}src(%b {{.*}}dst(%y 
  "tile.pass"(%a, %b) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  "tile.copy"(%b, %y) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #store} : (!local, !host) -> ()
  "tile.copy"(%w, %c) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  "tile.pass"(%c, %d) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  "tile.copy"(%d, %z) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #store} : (!local, !host) -> ()
  func.return
}

// A buffer is begun right before the first command that uses it, and nothing moves across a call.
// CHECK: func.func @calls
func.func @calls(%x : !host) {
  %late = "tile.alloc"() : () -> !local
  // CHECK-NOT: tile.alloc
  // CHECK: tile.call
  "tile.call"() {callee = @nothing} : () -> ()
  "tile.copy"(%x, %late) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  "tile.pass"(%late, %late) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !local) -> ()
  // CHECK: %late = {{.*}}tile.alloc
  // CHECK-NEXT: tile.copy
  // CHECK-NEXT: tile.pass
  func.return
}
func.func private @nothing() {
  func.return
}

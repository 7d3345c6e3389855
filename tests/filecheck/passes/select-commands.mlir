// RUN: irc opt %s -p 'select-commands{target=rngd}' | filecheck %s

!host = memref<64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
!held = memref<64x16xf32, "trf">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// A copy between main memory and the slices is a DMA command; a pass that only moves and computes runs on
// the main queue; a pass that fills the stationary memory does too as long as the queue has less to do than another.
// CHECK: func.func @main
func.func @main(%x : !host) {
  %a = "tile.alloc"() : () -> !local
  %b = "tile.alloc"() : () -> !local
  %w = "tile.alloc"() : () -> !held
  // CHECK: tile.copy
  // CHECK-SAME: command = "dma", queue = "dma"
  "tile.copy"(%x, %a) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load} : (!host, !local) -> ()
  // CHECK: tile.pass
  // CHECK-SAME: command = "tu", queue = "main"
  "tile.pass"(%a, %b) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move, chain = [{op = "exp"}]} : (!local, !local) -> ()
  // CHECK: tile.pass
  // CHECK-SAME: command = "tu", queue = "main"
  "tile.pass"(%a, %w) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !held) -> ()
  func.return
}

// Where the main queue would be the busiest for it, the load runs beside.
// CHECK: func.func @busy
func.func @busy() {
  %a = "tile.alloc"() : () -> !local
  %b = "tile.alloc"() : () -> !local
  %w = "tile.alloc"() : () -> !held
  // CHECK: tile.pass
  // CHECK-SAME: command = "tu", queue = "main"
  "tile.pass"(%a, %b) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move, chain = [{op = "exp"}]} : (!local, !local) -> ()
  // CHECK: tile.pass
  // CHECK-SAME: command = "tu", queue = "sub"
  "tile.pass"(%a, %w) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!local, !held) -> ()
  func.return
}

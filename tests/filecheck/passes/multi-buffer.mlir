// RUN: irc opt %s -p 'multi-buffer' | filecheck %s

!host = memref<64x16xf32, "hbm">
!local = memref<64x16xf32, "dm">
#load = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 16, 1>}, dst = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}}
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// Only the buffer that goes from one queue to another in a loop gets copies.
// CHECK: func.func @main
func.func @main(%x : !host) {
  // CHECK: %outside = {{.*}}tile.alloc
  // CHECK-NOT: copies
  %outside = "tile.alloc"() : () -> !local
  // CHECK: tile.for
  "tile.for"() ({
  ^bb0(%i : index):
    // CHECK: %loaded = {{.*}}tile.alloc{{.*}}copies = 2
    %loaded = "tile.alloc"() : () -> !local
    // CHECK: %inner = {{.*}}tile.alloc
    // CHECK-NOT: copies
    %inner = "tile.alloc"() : () -> !local
    "tile.copy"(%x, %loaded) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 16>, ports = #load, command = "dma", queue = "dma"} : (!host, !local) -> ()
    "tile.pass"(%loaded, %inner) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move, command = "tu", queue = "main"} : (!local, !local) -> ()
    "tile.pass"(%inner, %outside) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move, command = "tu", queue = "main"} : (!local, !local) -> ()
  }) {count = 4 : i64, start = 0 : i64} : () -> ()
  func.return
}

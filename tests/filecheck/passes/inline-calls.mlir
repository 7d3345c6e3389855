// RUN: irc opt %s -p 'inline-calls' | filecheck %s

// The only call of a function is replaced by its body; what is called from two places stays.
// CHECK: func.func private @shared
func.func private @shared(%h : memref<64x16xf32, "dm">) {
  func.return
}
// CHECK-NOT: @layer
func.func private @layer(%layer : index, %h : memref<64x16xf32, "dm">) {
  %slot = "tile.runtime"(%layer) {parameter = "slot"} : (index) -> index
  func.return
}
// CHECK: func.func @main
func.func @main() {
  %h = "tile.alloc"() : () -> memref<64x16xf32, "dm">
  // CHECK: tile.for %i
  "tile.for"() ({
  ^bb0(%i : index):
    // CHECK-NEXT: %slot = {{.*}}tile.runtime {{.*}}%i
    "tile.call"(%i, %h) {callee = @layer} : (index, memref<64x16xf32, "dm">) -> ()
    // CHECK-NEXT: tile.call @shared(%h)
    "tile.call"(%h) {callee = @shared} : (memref<64x16xf32, "dm">) -> ()
  }) {count = 4 : i64, start = 0 : i64} : () -> ()
  // CHECK: tile.call @shared(%h)
  "tile.call"(%h) {callee = @shared} : (memref<64x16xf32, "dm">) -> ()
  func.return
}

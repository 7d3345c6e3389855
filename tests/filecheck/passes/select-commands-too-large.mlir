// RUN: not irc opt %s -p 'select-commands{target=rngd}' | filecheck %s

!large = memref<64x200000xf32, "dm">
!main = memref<64x200000xf32, "hbm">
#whole = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 200000, 1>}
#cut = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 0, 1>, slices = array<i64: 1, 0>}

// A buffer that is larger than its memory is named, with both sizes: not the addresses that it leads to.
// CHECK: select-commands: %logits (lm_head) takes 800000 bytes in each slice of dm, which has 524288; compile for fewer tokens
func.func @main(%weights: !main) {
  %logits = "tile.alloc"() : () -> !large
  "tile.copy"(%weights, %logits) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 64, 200000>, ports = {src = #whole, dst = #cut}, module = "lm_head"} : (!main, !large) -> ()
  func.return
}

// RUN: irc opt %s | filecheck %s
// RUN: irc opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// A program is labels and commands; what its buckets are follows it.
// CHECK: npu.program @decode_1x64 {
// GENERIC: "npu.program"() ({
npu.program @decode_1x64 {
  // CHECK-NEXT: npu.label main
  // GENERIC-NEXT: "npu.label"() {label = "main"} : () -> ()
  npu.label main
  // CHECK-NEXT: npu.command set control {rd = 2, imm = -1} {source = "tile.for"}
  npu.command set control {rd = 2, imm = -1} {source = "tile.for"}
  // CHECK-NEXT: npu.command call control {offset = body}
  npu.command call control {offset = body}
  // CHECK-NEXT: npu.command halt control {}
  npu.command halt control {}
  // CHECK-NEXT: npu.label body
  npu.label body

  // Words stand without quotes unless they would read as a register or a number.
  // CHECK-NEXT: npu.command tu main {chain.op = [mul, ring_add], stream.type = f32, odd = "r2", empty = "", space = "a b", "1st" = "inf"}
  // GENERIC: fields = {chain.op = ["mul", "ring_add"], stream.type = "f32", odd = "r2", empty = "", space = "a b", "1st" = "inf"}
  npu.command tu main {chain.op = [mul, "ring_add"], stream.type = f32, odd = "r2", empty = "", space = "a b", "1st" = "inf"}

  // Registers carry an offset; lists hold integers, floats or words.
  // CHECK-NEXT: npu.command tu main {a = r2, b = r3 + 64, c = r4 - 8, size = [16, 4], none = [], value = [0.0, 1.0e-05], low = -inf, fill = -3.0e+38}
  // GENERIC: fields = {a = {imm = 0 : i64, reg = 2 : i64}, b = {imm = 64 : i64, reg = 3 : i64}, c = {imm = -8 : i64, reg = 4 : i64}, size = array<i64: 16, 4>
  npu.command tu main {a = r2, b = r3 + 64, c = r4 - 8, size = [16, 4], none = [], value = [0.0, 0.00001], low = -inf, fill = -3.0e+38}

  // Semaphores: what is taken before, and what is given after.
  // CHECK-NEXT: npu.command dma dma {} wait [(3, 1), (4, 2)] signal [(5, 1)] {module = "m"}
  // GENERIC: waits = [array<i64: 3, 1>, array<i64: 4, 2>], signals = [array<i64: 5, 1>], module = "m"}
  npu.command dma dma {} wait [(3, 1), (4, 2)] signal [(5, 1)] {module = "m"}
// CHECK-NEXT: } {description = {batch = 1 : i64}}
// GENERIC: }) {sym_name = "decode_1x64", description = {batch = 1 : i64}}
} {description = {batch = 1 : i64}}

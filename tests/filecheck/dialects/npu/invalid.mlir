// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A label stands once.
// CHECK: label main stands 2 times
npu.program @p {
  npu.label main
  npu.label main
}
// -----

// Calls name labels of the program.
// CHECK: call of body, which is no label of the program
npu.program @p {
  npu.label main
  npu.command call control {offset = body}
}
// -----

// Fields are numbers, words, registers and lists of them.
// CHECK: field size is unit, which no command field can be
"npu.command"() {command = "tu", queue = "main", fields = {size}} : () -> ()
// -----

// A register has a number and an offset.
// CHECK: field base is {reg = 2 : i64}, which no command field can be
"npu.command"() {command = "tu", queue = "main", fields = {base = {reg = 2 : i64}}} : () -> ()
// -----

// Semaphores are counted.
// CHECK: wait is [3, 0], expected a semaphore and a count of at least 1
npu.command tu main {} wait [(3, 0)]
// -----

// Uses of semaphores are pairs.
// CHECK: signal is [3], expected a semaphore and a count of at least 1
"npu.command"() {command = "tu", queue = "main", fields = {}, signals = [array<i64: 3>]} : () -> ()

// RUN: not irc opt %s -p 'quantize-weights{scheme="w2a2"}' | filecheck %s

// A scheme that is not known is an error that lists the others.
// CHECK: quantize-weights: no scheme 'w2a2', there are w8a16
func.func @empty() {
  func.return
}

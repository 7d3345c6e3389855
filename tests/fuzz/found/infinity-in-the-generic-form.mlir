// The generic form prints infinity by its bits in array<f32: …>, which did not parse back.
// how: encode rngd

builtin.module {
  builtin.module {
    npu.program @decode_1x1 {
      npu.label main
      npu.command tu main {stationary.strides = [1096, -5151, -75962, 223739, -81102459], ring_dim = 0, out.memory = dm, mask.limit = -100000, limit.dim = 0, vrf.type = i32, chain.op = [floor, ge, select], stationary.type = none, mask.dim = 0, out.base = 0, limit.limit = 0, chain.value = [inf], stream.base = 0, reduce = 0, size = [], chain.source = []} {source = "tile.pass"}
    }
  }
}

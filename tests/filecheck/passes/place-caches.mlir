// RUN: irc opt %s -p 'place-caches{target="rngd"}' | filecheck %s

// Each layer kind has a cache of its own, in the order of its layers. There is room for the largest bucket: as many
// slots as rows, positions padded to whole slices. Keys come before values, slots lie within a layer, and caches
// follow one another at multiples of 4096 bytes.
// CHECK: builtin.module attributes {npuc.cache_bytes = 1179648 : i64}
// CHECK-NEXT: tile.cache_decl @cache.local layers [0, 2] key_type memref<256x2x8xf32, "hbm"> value_type memref<256x2x24xf32, "hbm"> slots 4 offset 0 layer_stride 262144 slot_stride 65536 value_offset 16384
// CHECK-NEXT: tile.cache_decl @cache.global layers [1] key_type memref<256x2x8xf32, "hbm"> value_type memref<256x2x24xf32, "hbm"> slots 4 offset 524288 layer_stride 262144 slot_stride 65536 value_offset 16384
graph.cache_decl @cache layers [0, 1, 2] heads 2 key_size 8 value_size 24 type f32
// CHECK-NEXT: tile.cache_decl @narrow.global layers [1] key_type memref<256x4x24xbf16, "hbm"> value_type memref<256x4x24xbf16, "hbm"> slots 4 offset 786432 layer_stride 393216 slot_stride 98304 value_offset 49152
graph.cache_decl @narrow layers [1] heads 4 key_size 24 value_size 24 type bf16

// Every bucket's operations name the cache of their kind.
// CHECK-NEXT: builtin.module @decode_4x16
builtin.module @decode_4x16 attributes {npuc.bucket = {kind = "decode", batch = 4 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  func.func private @local(%k : tensor<4x1x16xf32, #tile.replicated>, %v : tensor<4x1x48xf32, #tile.replicated>) -> tensor<4x1x16xf32, #tile.replicated> {
    // CHECK: graph.kv_update @cache.local %k, %v
    %keys, %values = graph.kv_update @cache %k, %v : tensor<4x2x16x8xf32, #tile.host>, tensor<4x2x16x24xf32, #tile.host>
    func.return %k : tensor<4x1x16xf32, #tile.replicated>
  }
  func.func private @global(%k : tensor<4x1x16xf32, #tile.replicated>, %v : tensor<4x1x48xf32, #tile.replicated>, %n : tensor<4x4x1x24xbf16, #tile.replicated>) -> tensor<4x1x16xf32, #tile.replicated> {
    // CHECK: graph.kv_update @cache.global %k, %v
    %keys, %values = graph.kv_update @cache %k, %v : tensor<4x2x16x8xf32, #tile.host>, tensor<4x2x16x24xf32, #tile.host>
    // CHECK-NEXT: graph.kv_update @narrow.global %n, %n
    %others, %same = graph.kv_update @narrow %n, %n : tensor<4x4x16x24xbf16, #tile.host>, tensor<4x4x16x24xbf16, #tile.host>
    func.return %k : tensor<4x1x16xf32, #tile.replicated>
  }
  func.func private @body(%k : tensor<4x1x16xf32, #tile.replicated>, %v : tensor<4x1x48xf32, #tile.replicated>, %n : tensor<4x4x1x24xbf16, #tile.replicated>) {
    %0 = graph.layers @local [0] %k extras %v : tensor<4x1x16xf32, #tile.replicated>
    %1 = graph.layers @global [1] %0 extras %v, %n : tensor<4x1x16xf32, #tile.replicated>
    %2 = graph.layers @local [2] %1 extras %v : tensor<4x1x16xf32, #tile.replicated>
    func.return
  }
}
builtin.module @prefill_1x200 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 200 : i64, length = 200 : i64}} {
}

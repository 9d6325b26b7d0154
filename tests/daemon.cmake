lg_unit(wire_test SOURCES unit/wire_test.c OBJECTS lg_wire lg_crypto LIBS lg_ciphers)
lg_unit(manifestsig_test SOURCES unit/manifestsig_test.c OBJECTS lg_audit lg_wire lg_crypto LIBS lg_ciphers PkgConfig::ZSTD)
lg_fuzz(wire_fuzz SOURCES fuzz/wire_fuzz.c OBJECTS lg_wire lg_crypto LIBS lg_ciphers)

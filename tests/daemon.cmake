lg_unit(wire_test SOURCES unit/wire_test.c OBJECTS lg_wire lg_crypto LIBS PkgConfig::OPENSSL)
lg_fuzz(wire_fuzz SOURCES fuzz/wire_fuzz.c OBJECTS lg_wire lg_crypto LIBS PkgConfig::OPENSSL)

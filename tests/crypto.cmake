lg_unit(crypto_test SOURCES unit/crypto_test.c OBJECTS lg_crypto lg_wire LIBS PkgConfig::OPENSSL)

lg_unit(crypto_test SOURCES unit/crypto_test.c OBJECTS lg_crypto lg_wire LIBS lg_ciphers)
lg_unit(shares_test SOURCES unit/shares_test.c OBJECTS lg_crypto lg_wire LIBS lg_ciphers)

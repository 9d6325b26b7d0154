lg_unit(crypto_test SOURCES unit/crypto_test.c OBJECTS lg_crypto lg_wire LIBS lg_ciphers)
# The same on a system that asks for FIPS mode.
add_test(NAME crypto_fips_test COMMAND crypto_test)
set_tests_properties(crypto_fips_test PROPERTIES LABELS unit TIMEOUT ${LG_UNIT_SECONDS} ENVIRONMENT LIBGCRYPT_FORCE_FIPS_MODE=1)
lg_unit(shares_test SOURCES unit/shares_test.c OBJECTS lg_crypto lg_wire LIBS lg_ciphers)

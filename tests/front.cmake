lg_unit(ring_test SOURCES unit/ring_test.c ../fs/io/later.c LIBS PkgConfig::FUSE)
set_tests_properties(ring_test PROPERTIES SKIP_RETURN_CODE 77)

lg_unit(slab_test SOURCES unit/slab_test.c LIBS leadglass-core)
lg_unit(volume_test SOURCES unit/volume_test.c LIBS leadglass-core)
set_tests_properties(volume_test PROPERTIES SKIP_RETURN_CODE 77)
lg_unit(names_test SOURCES unit/names_test.c LIBS leadglass-core)

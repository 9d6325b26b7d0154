lg_unit(file_test SOURCES unit/file_test.c OBJECTS lg_file lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::LIBURING)

lg_unit(audit_test SOURCES unit/audit_test.c OBJECTS lg_audit lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::ZSTD)
lg_unit(follow_test SOURCES unit/follow_test.c OBJECTS lg_audit lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::ZSTD)

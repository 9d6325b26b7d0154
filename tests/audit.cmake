lg_unit(audit_test SOURCES unit/audit_test.c OBJECTS lg_audit lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::ZSTD)
lg_unit(follow_test SOURCES unit/follow_test.c OBJECTS lg_audit lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::ZSTD)
lg_unit(alert_test SOURCES unit/alert_test.c OBJECTS lg_alert lg_config lg_audit lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::ZSTD PkgConfig::CJSON PkgConfig::INIH)
target_compile_definitions(alert_test PRIVATE LG_SOURCE="${CMAKE_SOURCE_DIR}")

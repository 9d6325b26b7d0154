lg_unit(tamper_test SOURCES tamper/tamper_test.c LIBS leadglass-core)
target_compile_definitions(tamper_test PRIVATE THREAT_MODEL="${CMAKE_SOURCE_DIR}/docs/THREAT_MODEL.md")

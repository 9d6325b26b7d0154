lg_unit(reencrypt_test SOURCES unit/reencrypt_test.c LIBS leadglass-core PkgConfig::CJSON)
target_include_directories(reencrypt_test PRIVATE ${CMAKE_SOURCE_DIR}/tools/cli)

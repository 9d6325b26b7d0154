lg_unit(scrub_test SOURCES unit/scrub_test.c LIBS leadglass-core)
target_include_directories(scrub_test PRIVATE ${CMAKE_SOURCE_DIR}/fs/scrub)

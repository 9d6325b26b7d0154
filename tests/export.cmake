lg_unit(dicom_test SOURCES unit/dicom_test.c OBJECTS lg_export LIBS leadglass-keys PkgConfig::OPENSSL_TLS)
target_include_directories(dicom_test PRIVATE ${CMAKE_SOURCE_DIR}/tools/export)
add_test(NAME dicom_schema COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/unit/dicom_schema.py $<TARGET_FILE:dicom_test>)
set_tests_properties(dicom_schema PROPERTIES LABELS unit TIMEOUT 300 SKIP_RETURN_CODE 77)

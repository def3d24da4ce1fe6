/* SPDX-License-Identifier: Apache-2.0
 *
 * The methods of proto/chunk.proto by their position, for tests that call a chunk server. */
#ifndef ZBS_TESTS_LIB_CHUNK_METHODS_H
#define ZBS_TESTS_LIB_CHUNK_METHODS_H

enum method {
    INFO,
    CREATE,
    OPEN,
    WRITE,
    READ,
    COMMIT_POINT,
    CHECK_EPOCH,
    RESERVE,
    MISSING_START,
    MISSING_UPDATE,
    MISSING_GET,
    DELETE_,
    DIGEST,
    LIST,
    DISK_ADD,
    SCRUB,
    DISK_DRAIN,
    DISK_REMOVE,
    DIFF,
    REPLICA_RESERVE
};

#endif

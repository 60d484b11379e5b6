package store

const writerEnv = "STORE_TEST_WRITER"

func writeUntilKilled(string) {}

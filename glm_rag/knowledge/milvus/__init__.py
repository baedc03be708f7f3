"""Knowledge bases in Milvus, so that several machines share one."""

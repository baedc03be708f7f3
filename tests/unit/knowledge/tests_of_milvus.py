"""Which tests of the behaviour run on Milvus in the quick run, too: some of each kind."""

QUICK_ON_MILVUS = frozenset(
    {
        "test_what_is_put_comes_back",
        "test_an_edit_leaves_nothing_of_the_old_text",
        "test_removing_takes_the_document_with_all_its_traces",
        "test_texts_become_documents_and_can_be_removed",
        "test_deleting_some_chunks_keeps_their_document",
        "test_filters_select_by_metadata",
        "test_a_copy_is_known_by_its_own_source_and_stores_nothing",
        "test_a_file_and_its_members_are_one_transaction",
        "test_a_section_is_all_of_its_chunks_and_no_other",
        "test_killed_before_the_commit_the_old_version_counts",
        "test_killed_behind_the_commit_the_new_version_counts",
        "test_readers_never_see_a_mixture_while_a_file_is_exchanged",
        "test_totals_are_those_of_all_passages",
        "test_a_word_finds_its_passage_and_is_counted",
    }
)

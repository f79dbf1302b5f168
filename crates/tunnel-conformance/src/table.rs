//! The table of all cases.

/// Passes the table to another macro of this crate, after an argument of that macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __every_case {
    ($then:ident $argument:tt) => {
        $crate::$then! {
            $argument
            // The four kinds of call, and how each ends.
            unary_succeeds: kinds::succeeds(Unary);
            server_stream_succeeds: kinds::succeeds(ServerStream);
            client_stream_succeeds: kinds::succeeds(ClientStream);
            bidi_succeeds: kinds::succeeds(Bidi);
            unary_succeeds_without_metadata: kinds::succeeds_without_metadata(Unary);
            server_stream_succeeds_without_metadata: kinds::succeeds_without_metadata(ServerStream);
            client_stream_succeeds_without_metadata: kinds::succeeds_without_metadata(ClientStream);
            bidi_succeeds_without_metadata: kinds::succeeds_without_metadata(Bidi);
            unary_fails_before_messages: kinds::fails_before_messages(Unary);
            server_stream_fails_before_messages: kinds::fails_before_messages(ServerStream);
            client_stream_fails_before_messages: kinds::fails_before_messages(ClientStream);
            bidi_fails_before_messages: kinds::fails_before_messages(Bidi);
            unary_fails_without_reading: kinds::fails_without_reading(Unary);
            server_stream_fails_without_reading: kinds::fails_without_reading(ServerStream);
            client_stream_fails_without_reading [early_ends]: kinds::fails_without_reading(ClientStream);
            bidi_fails_without_reading [early_ends]: kinds::fails_without_reading(Bidi);
            server_stream_fails_after_headers: kinds::fails_after_headers(ServerStream);
            bidi_fails_after_headers: kinds::fails_after_headers(Bidi);
            unary_fails_after_messages: kinds::fails_after_messages(Unary);
            server_stream_fails_after_messages: kinds::fails_after_messages(ServerStream);
            client_stream_fails_after_messages: kinds::fails_after_messages(ClientStream);
            bidi_fails_after_messages: kinds::fails_after_messages(Bidi);
            unary_fails_with_every_code: kinds::fails_with_every_code(Unary);
            server_stream_fails_with_every_code: kinds::fails_with_every_code(ServerStream);
            client_stream_fails_with_every_code: kinds::fails_with_every_code(ClientStream);
            bidi_fails_with_every_code: kinds::fails_with_every_code(Bidi);
            unary_status_details_arrive [any_details]: kinds::details_arrive_as_they_were(Unary);
            server_stream_status_details_arrive [any_details]: kinds::details_arrive_as_they_were(ServerStream);
            client_stream_status_details_arrive [any_details]: kinds::details_arrive_as_they_were(ClientStream);
            bidi_status_details_arrive [any_details]: kinds::details_arrive_as_they_were(Bidi);
            status_messages_arrive_as_written: kinds::status_messages_arrive_as_written();

            // Empty messages, empty streams, many messages, and messages in alternation.
            unary_empty_messages_are_counted: messages::empty_messages_are_counted(Unary);
            server_stream_empty_messages_are_counted: messages::empty_messages_are_counted(ServerStream);
            client_stream_empty_messages_are_counted: messages::empty_messages_are_counted(ClientStream);
            bidi_empty_messages_are_counted: messages::empty_messages_are_counted(Bidi);
            client_stream_with_an_empty_request_stream_ends_cleanly: messages::an_empty_request_stream_ends_cleanly(ClientStream);
            bidi_with_an_empty_request_stream_ends_cleanly: messages::an_empty_request_stream_ends_cleanly(Bidi);
            server_stream_with_an_empty_response_stream_ends_cleanly: messages::an_empty_response_stream_ends_cleanly(ServerStream);
            bidi_with_an_empty_response_stream_ends_cleanly: messages::an_empty_response_stream_ends_cleanly(Bidi);
            a_bidi_call_without_any_message_succeeds: messages::a_bidi_call_without_any_message_succeeds();
            server_stream_headers_come_before_messages: messages::headers_come_before_messages(ServerStream);
            bidi_headers_come_before_messages: messages::headers_come_before_messages(Bidi);
            bidi_messages_go_back_and_forth: messages::bidi_messages_go_back_and_forth();
            bidi_answers_after_the_end_of_the_requests: messages::bidi_answers_after_the_end_of_the_requests();
            server_stream_many_small_messages_stay_in_order: messages::many_small_messages_stay_in_order(ServerStream);
            client_stream_many_small_messages_stay_in_order: messages::many_small_messages_stay_in_order(ClientStream);
            bidi_many_small_messages_stay_in_order: messages::many_small_messages_stay_in_order(Bidi);
            a_thousand_calls_in_a_row_succeed: messages::a_thousand_calls_in_a_row_succeed();
            a_unary_call_without_a_request_is_refused: messages::a_unary_call_without_a_request_is_refused();
            a_unary_call_without_a_response_fails: messages::a_unary_call_without_a_response_fails();

            // Messages that the client or the server compresses.
            unary_compressed_requests_arrive [compression]: compression::compressed_requests_arrive(Unary);
            server_stream_compressed_requests_arrive [compression]: compression::compressed_requests_arrive(ServerStream);
            client_stream_compressed_requests_arrive [compression]: compression::compressed_requests_arrive(ClientStream);
            bidi_compressed_requests_arrive [compression]: compression::compressed_requests_arrive(Bidi);
            unary_compressed_responses_arrive [compression]: compression::compressed_responses_arrive(Unary);
            server_stream_compressed_responses_arrive [compression]: compression::compressed_responses_arrive(ServerStream);
            client_stream_compressed_responses_arrive [compression]: compression::compressed_responses_arrive(ClientStream);
            bidi_compressed_responses_arrive [compression]: compression::compressed_responses_arrive(Bidi);
            unary_both_directions_may_be_compressed [compression]: compression::both_directions_may_be_compressed(Unary);
            server_stream_both_directions_may_be_compressed [compression]: compression::both_directions_may_be_compressed(ServerStream);
            client_stream_both_directions_may_be_compressed [compression]: compression::both_directions_may_be_compressed(ClientStream);
            bidi_both_directions_may_be_compressed [compression]: compression::both_directions_may_be_compressed(Bidi);
            unary_compression_that_is_not_accepted_is_refused [compression]: compression::a_server_that_does_not_accept_the_encoding_says_what_it_accepts(Unary);
            bidi_compression_that_is_not_accepted_is_refused [compression]: compression::a_server_that_does_not_accept_the_encoding_says_what_it_accepts(Bidi);
            a_client_that_accepts_nothing_gets_plain_responses [compression]: compression::a_client_that_accepts_nothing_gets_plain_responses();
            messages_of_one_stream_may_differ [compression]: compression::messages_of_one_stream_may_differ();
            a_compressed_message_without_an_encoding_is_an_internal_error [compression]: compression::a_compressed_message_without_an_encoding_is_an_internal_error();
            a_compressed_response_over_the_limit_is_not_inflated [compression]: compression::a_compressed_response_over_the_limit_is_not_inflated();

            // Headers, trailers and request metadata.
            unary_request_text_arrives: metadata::request_text_arrives(Unary);
            server_stream_request_text_arrives: metadata::request_text_arrives(ServerStream);
            client_stream_request_text_arrives: metadata::request_text_arrives(ClientStream);
            bidi_request_text_arrives: metadata::request_text_arrives(Bidi);
            unary_unusual_request_metadata_arrives [unusual_metadata]: metadata::unusual_request_metadata_arrives(Unary);
            server_stream_unusual_request_metadata_arrives [unusual_metadata]: metadata::unusual_request_metadata_arrives(ServerStream);
            client_stream_unusual_request_metadata_arrives [unusual_metadata]: metadata::unusual_request_metadata_arrives(ClientStream);
            bidi_unusual_request_metadata_arrives [unusual_metadata]: metadata::unusual_request_metadata_arrives(Bidi);
            unary_request_bytes_of_every_value_arrive: metadata::request_bytes_arrive(Unary);
            server_stream_request_bytes_of_every_value_arrive: metadata::request_bytes_arrive(ServerStream);
            client_stream_request_bytes_of_every_value_arrive: metadata::request_bytes_arrive(ClientStream);
            bidi_request_bytes_of_every_value_arrive: metadata::request_bytes_arrive(Bidi);
            unary_header_text_arrives: metadata::header_text_arrives(Unary);
            server_stream_header_text_arrives: metadata::header_text_arrives(ServerStream);
            client_stream_header_text_arrives: metadata::header_text_arrives(ClientStream);
            bidi_header_text_arrives: metadata::header_text_arrives(Bidi);
            unary_unusual_headers_arrive [unusual_metadata]: metadata::unusual_headers_arrive(Unary);
            server_stream_unusual_headers_arrive [unusual_metadata]: metadata::unusual_headers_arrive(ServerStream);
            client_stream_unusual_headers_arrive [unusual_metadata]: metadata::unusual_headers_arrive(ClientStream);
            bidi_unusual_headers_arrive [unusual_metadata]: metadata::unusual_headers_arrive(Bidi);
            unary_header_bytes_of_every_value_arrive: metadata::header_bytes_arrive(Unary);
            server_stream_header_bytes_of_every_value_arrive: metadata::header_bytes_arrive(ServerStream);
            client_stream_header_bytes_of_every_value_arrive: metadata::header_bytes_arrive(ClientStream);
            bidi_header_bytes_of_every_value_arrive: metadata::header_bytes_arrive(Bidi);
            unary_trailer_text_arrives: metadata::trailer_text_arrives(Unary);
            server_stream_trailer_text_arrives: metadata::trailer_text_arrives(ServerStream);
            client_stream_trailer_text_arrives: metadata::trailer_text_arrives(ClientStream);
            bidi_trailer_text_arrives: metadata::trailer_text_arrives(Bidi);
            unary_unusual_trailers_arrive [unusual_metadata]: metadata::unusual_trailers_arrive(Unary);
            server_stream_unusual_trailers_arrive [unusual_metadata]: metadata::unusual_trailers_arrive(ServerStream);
            client_stream_unusual_trailers_arrive [unusual_metadata]: metadata::unusual_trailers_arrive(ClientStream);
            bidi_unusual_trailers_arrive [unusual_metadata]: metadata::unusual_trailers_arrive(Bidi);
            unary_trailer_bytes_of_every_value_arrive: metadata::trailer_bytes_arrive(Unary);
            server_stream_trailer_bytes_of_every_value_arrive: metadata::trailer_bytes_arrive(ServerStream);
            client_stream_trailer_bytes_of_every_value_arrive: metadata::trailer_bytes_arrive(ClientStream);
            bidi_trailer_bytes_of_every_value_arrive: metadata::trailer_bytes_arrive(Bidi);
            unary_trailers_of_a_failure_arrive: metadata::trailers_of_a_failure_arrive(Unary);
            server_stream_trailers_of_a_failure_arrive: metadata::trailers_of_a_failure_arrive(ServerStream);
            client_stream_trailers_of_a_failure_arrive: metadata::trailers_of_a_failure_arrive(ClientStream);
            bidi_trailers_of_a_failure_arrive: metadata::trailers_of_a_failure_arrive(Bidi);
            server_stream_headers_and_trailers_stay_apart: metadata::headers_and_trailers_stay_apart(ServerStream);
            bidi_headers_and_trailers_stay_apart: metadata::headers_and_trailers_stay_apart(Bidi);
            a_hundred_keys_arrive: metadata::a_hundred_keys_arrive();
            metadata_is_not_seen_by_the_next_call: metadata::metadata_is_not_seen_by_the_next_call();

            // Messages with sizes at the edges of chunks, windows and limits.
            messages_of_0_bytes_pass: sizes::messages_of(0);
            messages_of_1_byte_pass: sizes::messages_of(1);
            messages_of_16383_bytes_pass: sizes::messages_of(16383);
            messages_of_16384_bytes_pass: sizes::messages_of(16384);
            messages_of_16385_bytes_pass: sizes::messages_of(16385);
            messages_of_65535_bytes_pass: sizes::messages_of(65535);
            messages_of_65536_bytes_pass: sizes::messages_of(65536);
            messages_of_65537_bytes_pass: sizes::messages_of(65537);
            messages_of_1_mib_pass: sizes::messages_of(1_048_576);
            messages_of_the_maximum_pass: sizes::messages_of_the_maximum();
            unary_request_over_the_maximum_is_out_of_range: sizes::a_request_over_the_maximum_is_out_of_range(Unary);
            server_stream_request_over_the_maximum_is_out_of_range: sizes::a_request_over_the_maximum_is_out_of_range(ServerStream);
            client_stream_request_over_the_maximum_is_out_of_range: sizes::a_request_over_the_maximum_is_out_of_range(ClientStream);
            bidi_request_over_the_maximum_is_out_of_range: sizes::a_request_over_the_maximum_is_out_of_range(Bidi);
            unary_response_over_the_maximum_is_out_of_range: sizes::a_response_over_the_maximum_is_out_of_range(Unary);
            server_stream_response_over_the_maximum_is_out_of_range: sizes::a_response_over_the_maximum_is_out_of_range(ServerStream);
            client_stream_response_over_the_maximum_is_out_of_range: sizes::a_response_over_the_maximum_is_out_of_range(ClientStream);
            bidi_response_over_the_maximum_is_out_of_range: sizes::a_response_over_the_maximum_is_out_of_range(Bidi);
            a_response_over_the_maximum_cancels_the_handler: sizes::a_response_over_the_maximum_cancels_the_handler();
            a_message_of_64_mib_passes_where_the_limits_allow [raised_limits]: sizes::a_message_of_64_mib_passes_where_the_limits_allow();
            messages_of_mixed_sizes_keep_their_order: sizes::messages_of_mixed_sizes_keep_their_order();
            server_stream_of_32_mib_arrives_whole: sizes::a_stream_of_32_mib_arrives_whole(ServerStream);
            client_stream_of_32_mib_arrives_whole: sizes::a_stream_of_32_mib_arrives_whole(ClientStream);
            bidi_of_32_mib_arrives_whole: sizes::a_stream_of_32_mib_arrives_whole(Bidi);

            // Many concurrent calls.
            a_thousand_unary_calls_at_once_succeed: concurrency::a_thousand_unary_calls_at_once();
            a_thousand_calls_of_all_kinds_at_once_succeed: concurrency::a_thousand_calls_of_all_kinds_at_once();
            large_transfers_run_side_by_side: concurrency::large_transfers_run_side_by_side();

            // Handlers that end their call during an upload.
            client_stream_success_ends_the_upload [early_ends]: early_end::a_success_ends_the_upload(ClientStream);
            bidi_success_ends_the_upload [early_ends]: early_end::a_success_ends_the_upload(Bidi);
            client_stream_failure_ends_the_upload [early_ends]: early_end::a_failure_ends_the_upload(ClientStream);
            bidi_failure_ends_the_upload [early_ends]: early_end::a_failure_ends_the_upload(Bidi);
            client_stream_refusal_ends_the_upload [early_ends]: early_end::a_refusal_ends_the_upload(ClientStream);
            bidi_refusal_ends_the_upload [early_ends]: early_end::a_refusal_ends_the_upload(Bidi);
            client_stream_upload_nobody_reads_is_ended [early_ends]: early_end::an_upload_nobody_reads_is_ended(ClientStream);
            bidi_upload_nobody_reads_is_ended [early_ends]: early_end::an_upload_nobody_reads_is_ended(Bidi);
            responses_before_an_early_end_arrive [early_ends]: early_end::responses_before_an_early_end_arrive();

            // Deadlines.
            unary_deadline_already_over_is_exceeded [deadlines]: deadlines::already_over(Unary);
            server_stream_deadline_already_over_is_exceeded [deadlines]: deadlines::already_over(ServerStream);
            client_stream_deadline_already_over_is_exceeded [deadlines]: deadlines::already_over(ClientStream);
            bidi_deadline_already_over_is_exceeded [deadlines]: deadlines::already_over(Bidi);
            unary_deadline_is_exceeded_before_headers [deadlines]: deadlines::before_headers(Unary);
            server_stream_deadline_is_exceeded_before_headers [deadlines]: deadlines::before_headers(ServerStream);
            client_stream_deadline_is_exceeded_before_headers [deadlines]: deadlines::before_headers(ClientStream);
            bidi_deadline_is_exceeded_before_headers [deadlines]: deadlines::before_headers(Bidi);
            server_stream_deadline_is_exceeded_after_headers [deadlines]: deadlines::after_headers(ServerStream);
            bidi_deadline_is_exceeded_after_headers [deadlines]: deadlines::after_headers(Bidi);
            server_stream_deadline_is_exceeded_between_messages [deadlines]: deadlines::between_messages(ServerStream);
            bidi_deadline_is_exceeded_between_messages [deadlines]: deadlines::between_messages(Bidi);
            client_stream_deadline_is_exceeded_during_an_upload [deadlines]: deadlines::during_an_upload(ClientStream);
            bidi_deadline_is_exceeded_during_an_upload [deadlines]: deadlines::during_an_upload(Bidi);
            server_stream_deadline_is_exceeded_while_responses_wait [deadlines]: deadlines::while_responses_wait_to_be_read(ServerStream);
            bidi_deadline_is_exceeded_while_responses_wait [deadlines]: deadlines::while_responses_wait_to_be_read(Bidi);
            a_deadline_of_one_call_leaves_the_others [deadlines]: deadlines::of_one_call_leaves_the_others();
            unary_deadline_far_away_changes_nothing: deadlines::far_away_changes_nothing(Unary);
            server_stream_deadline_far_away_changes_nothing: deadlines::far_away_changes_nothing(ServerStream);
            client_stream_deadline_far_away_changes_nothing: deadlines::far_away_changes_nothing(ClientStream);
            bidi_deadline_far_away_changes_nothing: deadlines::far_away_changes_nothing(Bidi);
            unary_deadline_reaches_the_handler: deadlines::reaches_the_handler(Unary);
            server_stream_deadline_reaches_the_handler: deadlines::reaches_the_handler(ServerStream);
            client_stream_deadline_reaches_the_handler: deadlines::reaches_the_handler(ClientStream);
            bidi_deadline_reaches_the_handler: deadlines::reaches_the_handler(Bidi);

            // Cancellation by drop, at every stage.
            unary_cancelled_before_headers_drops_the_handler: cancellation::before_headers(Unary);
            server_stream_cancelled_before_headers_drops_the_handler: cancellation::before_headers(ServerStream);
            client_stream_cancelled_before_headers_drops_the_handler: cancellation::before_headers(ClientStream);
            bidi_cancelled_before_headers_drops_the_handler: cancellation::before_headers(Bidi);
            server_stream_cancelled_after_headers_drops_the_handler: cancellation::after_headers(ServerStream);
            bidi_cancelled_after_headers_drops_the_handler: cancellation::after_headers(Bidi);
            server_stream_cancelled_between_responses_drops_the_handler: cancellation::between_responses(ServerStream);
            bidi_cancelled_between_responses_drops_the_handler: cancellation::between_responses(Bidi);
            server_stream_cancelled_in_a_flood_drops_the_handler: cancellation::in_a_flood_of_responses(ServerStream);
            bidi_cancelled_in_a_flood_drops_the_handler: cancellation::in_a_flood_of_responses(Bidi);
            client_stream_cancelled_during_an_upload_drops_the_handler: cancellation::during_an_upload(ClientStream);
            bidi_cancelled_during_an_upload_drops_the_handler: cancellation::during_an_upload(Bidi);
            client_stream_cancelled_is_no_clean_end_of_the_upload [cut_uploads]: cancellation::is_no_clean_end_of_an_upload(ClientStream);
            bidi_cancelled_is_no_clean_end_of_the_upload [cut_uploads]: cancellation::is_no_clean_end_of_an_upload(Bidi);
            client_stream_cancelled_during_an_upload_nobody_reads_drops_the_handler: cancellation::during_an_upload_nobody_reads(ClientStream);
            bidi_cancelled_during_an_upload_nobody_reads_drops_the_handler: cancellation::during_an_upload_nobody_reads(Bidi);
            dropping_the_responses_alone_cancels_the_call [responses_alone]: cancellation::by_dropping_the_responses_alone();
            client_stream_cancelled_by_its_handle_ends_on_both_sides [cancellation_handle]: cancellation::by_the_cancellation_handle(ClientStream);
            bidi_cancelled_by_its_handle_ends_on_both_sides [cancellation_handle]: cancellation::by_the_cancellation_handle(Bidi);
            client_stream_cancellation_reaches_a_detached_request_stream [detached]: cancellation::reaches_a_detached_request_stream(ClientStream);
            bidi_cancellation_reaches_a_detached_request_stream [detached]: cancellation::reaches_a_detached_request_stream(Bidi);
            a_cancellation_of_one_call_leaves_the_others: cancellation::of_one_call_leaves_the_others();
            a_channel_takes_two_hundred_cancellations_in_a_row: cancellation::two_hundred_times_in_a_row();

            // Calls of unknown methods, and handlers that panic.
            an_unknown_method_is_unimplemented: failures::an_unknown_method_is_unimplemented();
            an_unknown_service_is_unimplemented: failures::an_unknown_service_is_unimplemented();
            unary_panic_before_headers_is_internal [panics]: failures::a_panic_before_headers_is_internal(Unary);
            server_stream_panic_before_headers_is_internal [panics]: failures::a_panic_before_headers_is_internal(ServerStream);
            client_stream_panic_before_headers_is_internal [panics]: failures::a_panic_before_headers_is_internal(ClientStream);
            bidi_panic_before_headers_is_internal [panics]: failures::a_panic_before_headers_is_internal(Bidi);
            server_stream_panic_between_responses_is_internal [panics]: failures::a_panic_between_responses_is_internal(ServerStream);
            bidi_panic_between_responses_is_internal [panics]: failures::a_panic_between_responses_is_internal(Bidi);
            client_stream_panic_during_an_upload_is_internal [panics]: failures::a_panic_during_an_upload_is_internal(ClientStream);
            bidi_panic_during_an_upload_is_internal [panics]: failures::a_panic_during_an_upload_is_internal(Bidi);

            // Loss of the server.
            unary_lost_before_headers_is_unavailable [loss]: loss::before_headers(Unary);
            server_stream_lost_before_headers_is_unavailable [loss]: loss::before_headers(ServerStream);
            client_stream_lost_before_headers_is_unavailable [loss]: loss::before_headers(ClientStream);
            bidi_lost_before_headers_is_unavailable [loss]: loss::before_headers(Bidi);
            server_stream_lost_after_headers_is_unavailable [loss]: loss::after_headers(ServerStream);
            bidi_lost_after_headers_is_unavailable [loss]: loss::after_headers(Bidi);
            server_stream_lost_between_responses_is_unavailable [loss]: loss::between_responses(ServerStream);
            bidi_lost_between_responses_is_unavailable [loss]: loss::between_responses(Bidi);
            server_stream_lost_in_a_flood_is_unavailable [loss]: loss::in_a_flood_of_responses(ServerStream);
            bidi_lost_in_a_flood_is_unavailable [loss]: loss::in_a_flood_of_responses(Bidi);
            client_stream_lost_during_an_upload_is_unavailable [loss]: loss::during_an_upload(ClientStream);
            bidi_lost_during_an_upload_is_unavailable [loss]: loss::during_an_upload(Bidi);
            a_lost_far_end_fails_every_call_in_flight [loss]: loss::fails_every_call_in_flight();
            a_lost_far_end_fails_calls_made_afterwards [loss]: loss::fails_calls_made_afterwards();

            // Interceptors and tower layers on both sides.
            unary_client_interceptor_adds_metadata: interceptors::a_client_interceptor_adds_metadata(Unary);
            server_stream_client_interceptor_adds_metadata: interceptors::a_client_interceptor_adds_metadata(ServerStream);
            client_stream_client_interceptor_adds_metadata: interceptors::a_client_interceptor_adds_metadata(ClientStream);
            bidi_client_interceptor_adds_metadata: interceptors::a_client_interceptor_adds_metadata(Bidi);
            unary_client_interceptor_refuses: interceptors::a_client_interceptor_refuses(Unary);
            server_stream_client_interceptor_refuses: interceptors::a_client_interceptor_refuses(ServerStream);
            client_stream_client_interceptor_refuses: interceptors::a_client_interceptor_refuses(ClientStream);
            bidi_client_interceptor_refuses: interceptors::a_client_interceptor_refuses(Bidi);
            unary_client_layer_sees_the_call: interceptors::a_client_layer_sees_every_call(Unary);
            server_stream_client_layer_sees_the_call: interceptors::a_client_layer_sees_every_call(ServerStream);
            client_stream_client_layer_sees_the_call: interceptors::a_client_layer_sees_every_call(ClientStream);
            bidi_client_layer_sees_the_call: interceptors::a_client_layer_sees_every_call(Bidi);
            unary_server_interceptor_reaches_the_handler: interceptors::a_server_interceptor_reaches_the_handler(Unary);
            server_stream_server_interceptor_reaches_the_handler: interceptors::a_server_interceptor_reaches_the_handler(ServerStream);
            client_stream_server_interceptor_reaches_the_handler: interceptors::a_server_interceptor_reaches_the_handler(ClientStream);
            bidi_server_interceptor_reaches_the_handler: interceptors::a_server_interceptor_reaches_the_handler(Bidi);
            unary_server_interceptor_refuses: interceptors::a_server_interceptor_refuses(Unary);
            server_stream_server_interceptor_refuses: interceptors::a_server_interceptor_refuses(ServerStream);
            client_stream_server_interceptor_refuses: interceptors::a_server_interceptor_refuses(ClientStream);
            bidi_server_interceptor_refuses: interceptors::a_server_interceptor_refuses(Bidi);
            unary_server_layer_sees_the_call: interceptors::a_server_layer_sees_every_call(Unary);
            server_stream_server_layer_sees_the_call: interceptors::a_server_layer_sees_every_call(ServerStream);
            client_stream_server_layer_sees_the_call: interceptors::a_server_layer_sees_every_call(ClientStream);
            bidi_server_layer_sees_the_call: interceptors::a_server_layer_sees_every_call(Bidi);

            // Streams and channels do not affect each other.
            server_stream_left_unread_stops_nobody [windows]: isolation::an_unread_stream_stops_nobody(ServerStream);
            bidi_left_unread_stops_nobody [windows]: isolation::an_unread_stream_stops_nobody(Bidi);
            client_stream_upload_nobody_reads_stops_nobody [isolation]: isolation::an_upload_nobody_reads_stops_nobody(ClientStream);
            bidi_upload_nobody_reads_stops_nobody [isolation]: isolation::an_upload_nobody_reads_stops_nobody(Bidi);
            eight_unread_streams_stop_nobody [isolation]: isolation::eight_unread_streams_stop_nobody();
            eight_uploads_nobody_reads_stop_nobody [isolation]: isolation::eight_uploads_nobody_reads_stop_nobody();
            channels_never_see_each_other_s_messages: isolation::channels_never_see_each_other_s_messages();
            a_channel_that_goes_away_leaves_the_others: isolation::a_channel_that_goes_away_leaves_the_others();
        }
    };
}

"""Every `code` that an error of the API can have, and what it means. Codes are stable: programs go by them.

The schema lists them as the values that a code may have, so that an answer with another one is off the schema.
"""

from collections.abc import Mapping

from projects.engine.errors import CATALOGUE

CODES: Mapping[str, str] = {
    # --- Who may, and how often ----------------------------------------------------------------------------------
    "not_authenticated": "There is no token: send `Authorization: Bearer …`.",
    "authentication_failed": "The way of authentication is not one that is known here.",
    "invalid_token": "The token is unknown, expired or revoked.",
    "insufficient_scope": "The token's scope does not reach as far as this request.",
    "permission_denied": "A browser's session needs its CSRF token for this.",
    "throttled": "More requests than the rate limit allows: come back after `Retry-After` seconds.",
    "owner_queue_full": "As many of your builds wait as may: come back after `Retry-After` seconds, or cancel some.",
    "queue_full": "As many builds wait as this installation takes: come back after `Retry-After` seconds.",
    "too_many_readers": "As many live streams are open as this server takes: come back after `Retry-After` seconds.",
    # --- The request as a whole ----------------------------------------------------------------------------------
    "parse_error": "The body is not what its content type says, such as malformed JSON.",
    "bad_request": "The request's headers or address cannot be read.",
    "request_too_large": "The body is larger than any request may be.",
    "unsupported_media_type": "Bodies of this content type are not read here.",
    "not_acceptable": "This cannot be had in the form that `Accept` asks for.",
    "method_not_allowed": "This path does not know the method.",
    "not_found": "There is no such thing, or it is someone else's.",
    "range_not_satisfiable": "The range lies beyond the end of the content.",
    "conflict": "The thing is not in a state for this.",
    "build_not_finished": "Only a build that has ended can be retried: wait for its end, or cancel it.",
    "generation_not_ended": "Only a generation that failed or was cancelled can be retried.",
    "generation_under_way": "Another generation or repair changes the project: wait for its end, or cancel it.",
    "webhook_disabled": "The webhook is switched off: switch it on first.",
    "too_many_webhooks": "You have as many webhooks as one owner may: delete one, or have one told of all projects.",
    "nothing_to_edit": "The project has no files yet that a prompt could change.",
    "error": "A mistake of the server, which has been written to its log.",
    # --- Sending twice -------------------------------------------------------------------------------------------
    "invalid_idempotency_key": "An Idempotency-Key has 1 to 255 visible ASCII characters.",
    "idempotency_key_reused": "The Idempotency-Key came with another request before.",
    "idempotency_in_progress": "The first request with this Idempotency-Key is still under way: send it again shortly.",
    # --- Fields and parameters -----------------------------------------------------------------------------------
    "required": "The field is missing.",
    "null": "The field may not be null.",
    "blank": "The text may not be empty.",
    "empty": "The list may not be empty.",
    "invalid": "The value is not of the kind that the field takes.",
    "invalid_choice": "The value is not one of those that the field takes.",
    "min_value": "The number is too small.",
    "max_value": "The number is too large.",
    "max_length": "The text is too long.",
    "min_length": "The text or list is too short.",
    "out_of_range": "This installation does not allow as much, or as little.",
    "too_many": "The list or object has too many members.",
    "shape": "The value has another shape than the field takes.",
    "not_a_list": "The field takes a list.",
    "not_a_dict": "The field takes an object.",
    "null_characters_not_allowed": "The text holds a NUL character.",
    "surrogate_characters_not_allowed": "The text holds half a character.",
    "unknown_field": "There is no such field or parameter here.",
    "invalid_cursor": "The cursor is not one that this list gave.",
    "invalid_environment": "The variable cannot be set: its name, its value, or their number or size is not allowed.",
    "unknown_runtime": "This installation has no such runtime: `GET /v1/runtimes` lists those it has.",
    "unknown_version": "This installation does not have that version of the runtime.",
    "invalid_url": "Messages cannot be sent to such an address, or it can be written in a plainer way.",
    "https_only": "This installation sends messages over https:// only.",
    "inward_url": "The address, or one that its name stands for, is not on the public internet.",
    # --- Source files --------------------------------------------------------------------------------------------
    "no_files": "There is nothing to build.",
    "files_and_archive": "The files were sent twice: by themselves and as an archive.",
    "invalid_file": "The file's entry has another shape, or its content is not what `encoding` says.",
    "invalid_path": "The path cannot name a source file, such as one that leaves the project's folder.",
    "duplicate_path": "Two paths are one file on many machines, or a file is where another needs a folder.",
    "file_too_large": "The file is larger than one may be.",
    "project_too_large": "All files together are larger than a project may be.",
    "too_many_files": "The project has more files than it may have.",
    "more_faults": "There are more faults than are told at once.",
    "invalid_archive": "The archive cannot be read, or says of itself what is not so.",
    "unsafe_member": "The archive holds something else than plain files and folders, such as a link.",
    "invalid_dependency": "This is not the name of a package.",
    # --- What detection says, with the codes of verdicts ---------------------------------------------------------
    "no_runtime_detected": "The files do not say how to build them.",
    "unsupported_runtime_version": "The project asks for a version of its runtime that is not available here.",
    "invalid_manifest": "The project's manifest cannot be used.",
    # --- What the AI engine says, while the sender of a prompt waits -------------------------------------------------
    **{code: entry.message for code, entry in CATALOGUE.items()},
}

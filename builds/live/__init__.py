"""Live logs and events: the way of a line from a container to a browser, step by step.

1. Container. `builds.sandbox.execution` reads what a command prints and gives it to `Watch.on_output`: the `write` of
   the build's log writer, as `builds.runner` has set it.
2. Log writer. `builds.logs.writer.LogWriter` decodes it, cleans it (`chef.web.ansi`), takes secrets out of it
   (`builds.logs.redaction`), and inserts it as rows of LogChunk, several times a second, under the attempt's lease.
3. Publish. After the commit `chef.jobs.pubsub.publish_change` sends the build's id through Redis. Changes of status
   (`chef.jobs.models`) and phase (`builds.runner`) are published too.
4. Subscribe. In each web process one task, `chef.jobs.pubsub.subscribe`, receives the ids. `FeedRegistry` in
   `builds.live.readers` has started it, and wakes up the feed of the build, if there is one.
5. Feed. `builds.live.feeds.BuildFeed`, in its loop `follow`, reads what is new (`read_change`, by
   `builds.logs.entries.read_entries`) and encodes it as server-sent events: once for all of its readers.
6. Reader. `log_stream`, `page_stream` and `event_stream` in `builds.live.readers` make one generator per connection.
   Each has a position of its own: a `Cursor` (`builds.logs.entries`), an event's id, or both. A Last-Event-ID is one.
7. HTTP. `builds.api.streams` (API) and `builds.pages.builds.log` (pages) check who asks and for what, and give the
   generator to `chef.web.streaming.stream_response`, which limits how many are open. When Django is done with the
   request, `chef.web.streaming.serve` sends what the generator yields.
8. Browser. `static/js/build.js` first fetches what is stored, page by page: `log_page` in `builds.pages.builds.log`, by
   `read_page` in `builds.logs.lines`. A build that has ended needs nothing else. Otherwise an EventSource continues
   from there, and reconnects by itself with the last id.

The database is the truth: a message of Redis only says when to read. Feeds also poll, so that readers get everything
when messages are lost: within a second without a subscription, within five seconds with one.

Events of generations go the same way from step 3 on, by `GenerationFeed` and `generation_stream`.
"""

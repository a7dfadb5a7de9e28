"""Live logs and events: how a line gets from a container to a browser, step by step.

1. Container. `builds.sandbox.execution` reads a command's output and passes it to `Watch.on_output`, which
   `builds.runner` has set to the `write` of the build's log writer.
2. Log writer. `builds.logs.writer.LogWriter` decodes and cleans it (`chef.text.ansi`), masks secrets
   (`builds.logs.redaction`), and inserts it as rows of LogChunk, several times a second, under the attempt's lease.
3. Publish. After the commit, `chef.jobs.pubsub.publish_change` sends the build's id through Redis. Changes of status
   (`chef.jobs.models`) and phase (`builds.runner`) are published too.
4. Subscribe. In each web process one task, `chef.jobs.pubsub.subscribe`, receives the ids. `FeedRegistry` in
   `builds.live.streams` starts it, and wakes up the build's feed, if there is one.
5. Feed. `builds.live.feeds.BuildFeed.follow` loops: it reads what is new (`read_change`, with
   `builds.logs.entries.read_entries`) and encodes it as server-sent events, once for all of its readers.
6. Reader. `log_stream`, `page_stream` and `event_stream` in `builds.live.streams` create one generator per connection.
   Each has its own position: a `Cursor` (`builds.logs.entries`), an event's id, or both, as in Last-Event-ID.
7. HTTP. `builds.api.streams` (API) and `builds.pages.builds.log` (pages) check access and parameters, and pass the
   generator to `chef.web.streaming.stream_response`, which limits how many are open. When Django is done with the
   request, `chef.web.streaming.serve` sends what the generator yields.
8. Browser. `static/js/build.js` first fetches the stored log, page by page: `log_page` in `builds.pages.builds.log`,
   from `read_page` in `builds.logs.lines`. A finished build needs nothing else. Otherwise an EventSource continues from
   there, and reconnects by itself with the last id.

The database is the source of truth: a message from Redis only says when to read it. Feeds also poll, so if messages are
lost, readers still get everything: within a second without a subscription, within five seconds with one.

Events of generations take the same path from step 3 on, through `GenerationFeed` and `generation_stream`.
"""

"""The status page: what a browser shows of containers, images, pulls and events.

`Overview` says what there is, by the rooms that know it, and knows nothing of HTTP; `StatusSite`
answers a browser: the page's files, what the overview says as JSON, and a stream of events. Nothing
is done while no page is open. `docs/status-page.md` describes the answers.
"""

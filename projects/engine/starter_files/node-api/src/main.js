import { createApp } from "./server.js";

const TITLE = "%%title:js%%";
const host = process.env.HOST ?? "127.0.0.1";
const port = Number(process.env.PORT ?? 3000);

const server = createApp();
server.listen(port, host, () => console.log(`${TITLE}: http://${host}:${port}/todos`));

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    server.close();
    // Requests may end; connections that only wait for the next one may not keep the process.
    server.closeIdleConnections();
  });
}

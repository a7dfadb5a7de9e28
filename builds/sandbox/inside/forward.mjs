// Runs inside the installation container, for images that have node: gives package managers, which know proxies by
// host and port only, a loopback port that leads to the proxy's unix socket; then runs the command and ends as it ends.
//
//   node forward.mjs SOCKET PORT -- argv...
//
// Exit codes: the command's own, 128 + signal when one killed it, 126 or 127 when it cannot be run, 70 when the port
// cannot be had, 64 when called wrongly.
import { spawn } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { constants } from 'node:os';

const [socketPath, port, separator, command, ...args] = process.argv.slice(2);

function leave(code, reason) {
  process.stderr.write(`chef: ${reason}\n`, () => process.exit(code));
}

// Each side may finish first and still listen: `pipe` passes the end on, and holds back a sender that is too fast.
function carry(client) {
  const proxy = connect({ path: socketPath, allowHalfOpen: true });
  for (const [from, to] of [[client, proxy], [proxy, client]]) {
    from.pipe(to);
    from.on('error', () => to.destroy());
  }
}

function run() {
  const child = spawn(command, args, { stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => leave(error.code === 'ENOENT' ? 127 : 126, `cannot run ${command}: ${error.code}`));
  child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, carry);
server.on('error', (error) => leave(70, `cannot listen on 127.0.0.1:${port}: ${error.code}`));
if (separator !== '--' || !command || !(Number(port) > 0 && Number(port) < 65536)) {
  leave(64, 'usage: node forward.mjs SOCKET PORT -- command [argument...]');
} else {
  server.listen({ host: '127.0.0.1', port: Number(port), backlog: 1024 }, run);
}

// Loaded into the Agents Playground, which has no option for either.
const http = require("node:http");
const net = require("node:net");

// It listens on every interface, and the bot behind it takes anonymous calls.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, typeof port === "number" ? { port, host: "127.0.0.1" } : port, ...rest);
};

// What a bot posts before the page is open is lost, so the bot is asked to come back until a page has loaded.
let opened = false;
http.Server.prototype.emit = function (event, request, response) {
  if (event === "request") {
    opened ||= request.url.startsWith("/_debug/conversation/");
    if (!opened && request.url.startsWith("/_connector/")) {
      response.writeHead(503, { "Retry-After": "2" }).end();
      return true;
    }
  }
  return net.Server.prototype.emit.apply(this, arguments);
};

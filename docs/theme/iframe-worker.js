/* Browsers start no worker from a file. The search runs in a hidden frame then, and believes that it is in a worker. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      addEventListener("message", (event) => {
        if (event.source === this.inside) this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
      this.loaded = new Promise((done) => {
        const page = this.inside.document;
        page.open();
        page.write('<script>postMessage = (data) => parent.postMessage(data, "*");</' + "script><body></body>");
        page.close();
        this.inside.importScripts = (...scripts) => scripts.reduce((before, src) => before.then(() => run(src)), Promise.resolve());
        const run = (src) => new Promise((then, otherwise) => {
          const script = page.createElement("script");
          Object.assign(script, { src, onload: then, onerror: otherwise });
          page.body.append(script);
        });
        run(url).then(done);
      });
    }
    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data, source: window })));
    }
    terminate() {}
  };
}

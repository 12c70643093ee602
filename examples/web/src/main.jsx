import { useState } from "react";
import { createRoot } from "react-dom/client";

function App() {
  const [count, setCount] = useState(0);
  return (
    <main style={{ fontFamily: "sans-serif", margin: "4rem" }}>
      <h1>Built and served by Corral</h1>
      <button onClick={() => setCount(count + 1)}>{count} horses in the corral</button>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<App />);

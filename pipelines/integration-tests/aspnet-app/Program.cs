using System.Runtime.InteropServices;

var app = WebApplication.CreateBuilder(args).Build();

// The runtime that really runs, such as ".NET 8.0.11". The test compares its beginning with what the image promises.
app.MapGet("/", () => RuntimeInformation.FrameworkDescription);

app.Run();
